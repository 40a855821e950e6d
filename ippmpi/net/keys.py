"""CURVE keys. What only holds them, on the controller's own host, never loads ZeroMQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class KeyPair(NamedTuple):
    """A CURVE key pair, Z85 text."""

    public: str
    secret: str


class ServerKeys(NamedTuple):
    """The listening side's own pair, and the known keys with the role that each one has."""

    public: str
    secret: str
    known: Mapping[str, str]


def keypair() -> tuple[str, str]:
    """Return a fresh ``(public, secret)`` pair as Z85 text."""
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
