"""Values that stay on engines: questions of one engine to another and their answers, and what may be let go.

The hub knows no values. It remembers one question of each engine, to answer it itself if the engine that is asked dies;
after a restart agents ask again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ippmpi.core.effects import Effect
from ippmpi.core.ledger import Client, Ledger, release
from ippmpi.errors import ProtocolError
from ippmpi.ids import EngineId, Peer
from ippmpi.wire.messages import Content, Failure, Fetch, Fetched, Free


class Exchange:
    """Passes on questions, answers and ``Free``."""

    def __init__(self, ledger: Ledger) -> None:
        """Look up engines and clients in *ledger*."""
        self._ledger = ledger
        self.asked: dict[EngineId, Fetch] = {}

    def ask(self, message: Fetch) -> Iterator[Effect]:
        """Pass a question on, or answer it: there is no such engine (any more)."""
        asking = EngineId(message.engine)
        if asking not in self._ledger.engines:
            return  # it was lost meanwhile
        holder = self._ledger.engines.get(EngineId(message.holder))
        if holder is None:
            self.asked.pop(asking, None)
            yield from self._refuse(message)
            return
        self.asked[asking] = message
        yield from self._ledger.to_agent(holder.agent, message)

    def answer(self, peer: Peer, message: Fetched) -> Iterator[Effect]:
        """Pass an answer on to whoever asked; drop it if that is no question (any more)."""
        asking = EngineId(message.engine)
        engine, question = self._ledger.engines.get(asking), self.asked.get(asking)
        if engine is None or question is None or question.number != message.number:
            yield from release([message.content])
            return
        holder = self._ledger.engines.get(EngineId(question.holder))
        if holder is not None and holder.agent != peer:
            raise ProtocolError(f"{peer} answers for {holder}, which is behind {holder.agent}")
        del self.asked[asking]
        yield from self._ledger.to_agent(engine.agent, message)

    def lost(self, engines: Sequence[EngineId]) -> Iterator[Effect]:
        """Answer the questions to *engines*, which are lost, and forget theirs."""
        if not self.asked:
            return
        for engine in engines:
            self.asked.pop(engine, None)
        for asking, message in list(self.asked.items()):
            if message.holder in engines:
                del self.asked[asking]
                yield from self._refuse(message)

    def _refuse(self, message: Fetch) -> Iterator[Effect]:
        why = self._ledger.missing(EngineId(message.holder))
        failure = Failure("HandleError", why, kind="HandleError")
        agent = self._ledger.engines[EngineId(message.engine)].agent
        yield from self._ledger.to_agent(agent, Fetched(message.engine, message.number, Content(), failure))

    # --- the end of a value --------------------------------------------------------------------------

    def free(self, peer: Peer, message: Free) -> Iterator[Effect]:
        """Tell engines what their clients have no handles of any more. Raises ProtocolError."""
        tasks, places = message.tasks, message.engines
        if len(tasks) != len(places) or len(tasks) > self._ledger.limits.targets or message.client:
            raise ProtocolError(f"{peer} lets go of {len(tasks)} values on {len(places)} engines, or of a client's")
        groups: dict[Peer, Free] = {}
        for task, place in zip(tasks, places, strict=True):
            engine = self._ledger.engines.get(EngineId(place))
            if engine is not None:
                group = groups.setdefault(engine.agent, Free([], []))
                group.tasks.append(task)
                group.engines.append(place)
        for agent, group in groups.items():
            yield from self._ledger.to_agent(agent, group)

    def client_gone(self, client: Client) -> Iterator[Effect]:
        """Have all that *client* has left on engines let go, if it has (after a restart that is not known)."""
        if client.keeps or self._ledger.restored:
            name = client.peer.removeprefix("client:")
            for agent in self._ledger.agents:
                yield from self._ledger.to_agent(agent, Free([], [], name))
