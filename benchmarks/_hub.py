"""The pure core alone: the same registrations and calls, with every message handed to it and every effect recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable

from _nodes import answer, registration

from ippmpi.core.effects import Effect, Keep, Send
from ippmpi.core.hub import Hub
from ippmpi.core.limits import Limits
from ippmpi.ids import Peer
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import Content, EnginesChanged, Message, RegisterEngines, Replies, Reply, Run, Submit

CLIENT = Peer("client:c")
CALLS = 3


class Recorder:
    """A hub whose peers write down what they are sent."""

    def __init__(self) -> None:
        """Let one client connect."""
        self.hub = Hub(LeastLoad(), Limits())
        self.sent: list[tuple[Peer, Message]] = []
        self.take(self.hub.connected(CLIENT, {}))

    def take(self, effects: Iterable[Effect]) -> None:
        """Write down what is sent; who joins is stored at once."""
        for effect in list(effects):
            if type(effect) is Send:
                self.sent.append((effect.peer, effect.message))
            elif type(effect) is Keep and type(effect.message) is EnginesChanged:
                self.take(self.hub.stored(effect.message))

    def told(self) -> list[tuple[Peer, Message]]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


def measure_core(agents: int, ranks: int) -> dict[str, float]:
    """Register *agents* nodes of *ranks* and call all; return CPU times. Raises RuntimeError if it goes wrong."""
    recorder = Recorder()
    size = agents * ranks
    register_s = _register(recorder, [registration(node, ranks, size) for node in range(agents)])
    joined = [r.id for _, m in recorder.told() if isinstance(m, EnginesChanged) for r in m.joined]
    if joined != list(range(size)):
        raise RuntimeError(f"{len(joined)} engines joined, or not in order, where {size} were expected")
    return {"core_register_s": register_s, "core_call_s": min(_call(recorder, size, i) for i in range(CALLS))}


def _register(recorder: Recorder, messages: list[RegisterEngines]) -> float:
    started = time.process_time()
    for message in messages:
        peer = Peer(f"agent:{message.world}@{message.engines[0].host}")
        recorder.take(recorder.hub.connected(peer, {}))
        recorder.take(recorder.hub.handle(peer, message))
    return time.process_time() - started


def _call(recorder: Recorder, size: int, number: int) -> float:
    """Return the CPU time of one call on all, without what the nodes use."""
    submit = Submit(f"c-{number}", "apply", list(range(size)), [Content(b"noop", 4)])
    started = time.process_time()
    recorder.take(recorder.hub.handle(CLIENT, submit))
    used = time.process_time() - started
    replies = [(peer, answer(run)) for peer, run in recorder.told() if isinstance(run, Run)]
    started = time.process_time()
    for peer, reply in replies:
        recorder.take(recorder.hub.handle(peer, reply))
    used += time.process_time() - started
    got = [_count(message) for _, message in recorder.told()]
    if sum(got) != size or recorder.hub.ledger.tasks:
        raise RuntimeError(f"{sum(got)} replies of {size} engines reached the client")
    return used


def _count(message: Message) -> int:
    return len(message.replies) if isinstance(message, Replies) else int(isinstance(message, Reply))
