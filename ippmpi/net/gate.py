"""The first thing a peer says: is it a Hello, of our version, and which role may it have."""

from __future__ import annotations

from collections.abc import Mapping

from ippmpi.errors import ProtocolError, Refused
from ippmpi.net.compatible import check_version
from ippmpi.wire.frames import decode_link, hello_version
from ippmpi.wire.messages import Hello

LONGEST_NAME = 500


class Gate:
    """Reads what strangers say."""

    def __init__(self, here: str, known: Mapping[str, str] | None) -> None:
        """*here* names this side in refusals; *known* are keys with their roles, None: there are no keys."""
        self._here = here
        self._known = known

    def read(self, frame: bytes) -> Hello:
        """Return the Hello in *frame*.

        Raises:
            Refused: it is of another version of the protocol.
            ProtocolError: it is none, or one that cannot be right.
        """
        try:
            record = decode_link(frame)
        except ProtocolError:
            version = hello_version(frame)  # that of another version may have other fields
            if version is not None:
                check_version("the peer", version, self._here)
            raise
        if not isinstance(record, Hello):
            raise ProtocolError(f"expected a Hello first, got {type(record).__name__}")
        if not 0 < len(record.peer) <= LONGEST_NAME or not record.peer.isprintable():
            raise ProtocolError(f"a Hello with a name of {len(record.peer)} characters; {LONGEST_NAME} may be printed")
        check_version(record.peer, record.version, self._here)
        if len(record.token) != 16 or record.channel not in ("control", "data"):
            raise ProtocolError(
                f"a Hello with a token of {len(record.token)} bytes for channel {record.channel[:20]!r}"
            )
        return record

    def role(self, key_role: str | None, hello: Hello) -> str:
        """Return the role of *hello*: that of its key, or, where there are no keys (same user only), what it says.

        Raises:
            Refused: the key is unknown, or that of another role.
        """
        role = key_role
        if role is None and self._known is not None:
            role = self._known.get(hello.key)
            if role is None:
                raise Refused(
                    f"{self._here} does not know the key of {hello.peer}; is the connection file of another cluster, "
                    "or of another start of this one?"
                )
        if role is not None and role != hello.role:
            raise Refused(f"the key of {hello.peer} is a key for the role {role!r}, not {hello.role[:20]!r}")
        return hello.role
