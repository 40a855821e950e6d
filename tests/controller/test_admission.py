"""Who may come in."""

from __future__ import annotations

import platform

import pytest

from ippmpi.controller.admission import admit
from ippmpi.errors import Refused
from ippmpi.wire.messages import PROTOCOL_VERSION, Hello

HERE = platform.python_version()


def hello(
    peer: str = "client:0123456789ab", *, role: str = "client", version: int = PROTOCOL_VERSION, python: str = HERE
) -> Hello:
    return Hello(version, role, peer, b"t" * 16, "control", 0, python)


@pytest.mark.parametrize(("peer", "role"), [("client:0123456789ab", "client"), ("agent:w-1.x@node07.site", "agent")])
def test_a_peer_that_fits_is_told_who_we_are(peer: str, role: str) -> None:
    about = admit(hello(peer, role=role), role)
    assert about["python"] == HERE


@pytest.mark.parametrize(
    ("wrong", "role", "text"),
    [
        (hello(version=99), "client", rf"version {PROTOCOL_VERSION}, client:0123456789ab speaks 99"),
        (hello(python="3.2.1"), "client", rf"Python {HERE}, client:0123456789ab runs 3.2.1"),
        (hello(python=""), "client", "an unknown one"),
        (hello(role="agent"), "client", "its key is that of 'client'"),
        (hello(role="engine"), "engine", "takes the roles client and agent"),
        (hello("agent:w@h"), "client", "not a name for the role 'client'"),
        (hello("client:x\n"), "client", "not a name"),
    ],
)
def test_others_are_refused_with_both_sides_named(wrong: Hello, role: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        admit(wrong, role)


def test_another_patch_release_of_python_is_fine() -> None:
    major, minor, _ = platform.python_version_tuple()
    admit(hello(python=f"{major}.{minor}.99"), "client")
