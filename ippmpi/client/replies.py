"""What ``execute`` gives back: the numbered ``Out`` value of a cell on one engine."""

from __future__ import annotations

from typing import Any, cast

from ippmpi.client.contents import Flat
from ippmpi.client.parts import METADATA_KEYS, Metadata, Part
from ippmpi.wire import pickling


class ExecuteReply:
    """The outcome of an ``execute`` on one engine; shows like the ``Out`` value in a notebook."""

    def __init__(self, part: Part, reply: dict[str, Any]) -> None:
        """Wrap what the engine replied."""
        self._part = part
        self.execution_count: int = reply["execution_count"]
        self.source: str | None = reply.get("source")
        self.data: dict[str, Any] = reply.get("result") or {}

    @property
    def metadata(self) -> Metadata:
        """Everything known about this call on this engine."""
        return self._part.metadata()

    @property
    def stdout(self) -> str:
        """What the code printed."""
        return self._part.text("stdout")

    @property
    def stderr(self) -> str:
        """What the code printed on the error stream."""
        return self._part.text("stderr")

    def __getattr__(self, name: str) -> Any:
        """Return one field of the metadata."""
        if name in METADATA_KEYS:
            return self._part.field(name)
        raise AttributeError(f"no {name!r} in {self!r}; its metadata have {', '.join(METADATA_KEYS)}")

    def display(self) -> None:
        """Show the ``Out`` value, if there is one: rich in a notebook, its plain text elsewhere."""
        from ippmpi.client.display import out, rank_of, show

        show([(rank_of(self._part), shown) for shown in out(self._part)])

    def __getitem__(self, key: str) -> Any:
        """Return one field of the metadata."""
        return self._part.field(key)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's hook
        return self.data or {"text/plain": repr(self)}

    def __repr__(self) -> str:
        """Show the number and the plain text of the ``Out`` value."""
        text = str(self.data.get("text/plain", ""))
        return f"<ExecuteReply[{self.execution_count}]: {text if len(text) <= 32 else text[:29] + '...'}>"


def unpickle_reply(part: Part, pickled: Flat) -> ExecuteReply:
    """Unpickle the reply of one engine and note its code and its ``Out`` value in the part."""
    reply = cast("dict[str, Any]", pickling.unpack(pickled))
    part.executed = {"execute_input": reply.get("source"), "execute_result": reply.get("result")}
    return ExecuteReply(part, reply)
