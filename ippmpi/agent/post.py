"""Where an agent stands, which most of its parts need to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ippmpi.agent.seams import Conversation, Loop
from ippmpi.agent.together import Together


@dataclass(frozen=True, slots=True)
class Post:
    """Where the agent stands. Names of its host's files in ``folder`` start with ``prefix``.

    ``together``: replies that wait for others on their way to the ``controller``.
    """

    world: str
    folder: Path
    prefix: str
    loop: Loop
    controller: Conversation
    together: Together
