"""Write ``docs/protocol.md`` from ``ippmpi/wire/messages.py``: run this file after changing a message."""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec

from ippmpi.wire import messages as m

PAGE = Path(__file__).with_name("protocol.md")


def page() -> str:
    """Return the page."""
    parts = [
        "# The protocol",
        f"Version {m.PROTOCOL_VERSION}. Made from `ippmpi/wire/messages.py` by `docs/protocol.py`; edit it there.",
        _theory(m.__doc__),
        "## Messages",
        *(_entry(kind) for kind in m.Message.__subclasses__()),
        "## Parts of messages",
        "On the wire an array of their fields, without a tag.",
        *(_entry(kind) for kind in m.Record.__subclasses__()),
        "## Link records",
        "The session layer's own, one per ZeroMQ message.",
        *(_entry(kind) for kind in m.LinkRecord.__subclasses__()),
    ]
    return "\n\n".join(parts) + "\n"


def _theory(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "").replace("``", "`")


def _entry(kind: type[msgspec.Struct]) -> str:
    tag = kind.__struct_config__.tag
    title = f"### {kind.__name__}" + (f" · `{tag}`" if tag else "")
    route = getattr(kind, "ROUTE", "")
    rows = [f"| `{f.name}` | `{_type(kind, f)}` | {_default(f)} |" for f in msgspec.structs.fields(kind)]
    table = "\n".join(["| field | type | default |", "|---|---|---|", *rows]) if rows else "No fields."
    return "\n\n".join(part for part in (title, route and f"*{route}*", _theory(kind.__doc__), table) if part)


def _type(kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    return str(kind.__annotations__[field.name]).replace("|", "\\|")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()!r}`"
    return "" if field.default is msgspec.NODEFAULT else f"`{field.default!r}`"


if __name__ == "__main__":
    PAGE.write_text(page())
