"""The IPython that the user sits at, if there is one; never imports it."""

from __future__ import annotations

import sys
from typing import Any


def running_shell() -> Any:
    """Return the IPython this runs in, or None."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def in_notebook() -> bool:
    """Say whether rich output can be shown: in an IPython that is a kernel."""
    kernel = getattr(running_shell(), "kernel", None)
    return hasattr(kernel, "session")  # an engine's has none
