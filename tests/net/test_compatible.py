"""Which two sides can work together."""

from __future__ import annotations

import platform

import cloudpickle
import pytest

from ippmpi.errors import Refused
from ippmpi.net.compatible import check_pickles, check_python, check_version, cloudpickle_version, python
from ippmpi.wire.messages import PROTOCOL_VERSION
from net.raw import a_hello


def test_the_same_everywhere_is_fine() -> None:
    check_version("a peer", PROTOCOL_VERSION, "here")
    check_python(a_hello(python=python()), "here")
    check_pickles("a peer", {"cloudpickle": cloudpickle.__version__}, "here")
    check_pickles("a peer", {}, "here")
    assert cloudpickle_version() == cloudpickle.__version__
    assert python() == platform.python_version()


@pytest.mark.parametrize("other", ["3.2.1", "PyPy " + platform.python_version(), "", "4", "3"])
def test_another_python_is_refused_with_both_named(other: str) -> None:
    with pytest.raises(Refused, match=f"the agent runs Python {python()}, client:raw runs {other or 'an unknown'}"):
        check_python(a_hello(python=other), "the agent")


def test_another_cloudpickle_is_refused_with_both_named() -> None:
    with pytest.raises(Refused, match=r"the agent has cloudpickle 3\.1\.0, a peer has 2\.2\.1"):
        check_pickles("a peer", {"cloudpickle": "2.2.1"}, "the agent", lambda: "3.1.0")
