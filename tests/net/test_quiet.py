"""The log that nobody can fill."""

from __future__ import annotations

import logging

import pytest

from ippmpi.net import quiet
from ippmpi.net.quiet import Quiet


def test_a_flood_leaves_a_burst_and_later_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("ippmpi.test")
    with caplog.at_level(logging.INFO, "ippmpi"):
        one = Quiet(log, 3)
        for number in range(100):
            one.warning("wrong %d", number)
        assert [r.getMessage() for r in caplog.records] == ["wrong 0", "wrong 1", "wrong 2"]
        monkeypatch.setattr(quiet, "EVERY_S", 0.0)
        one.info("news")
    assert [r.getMessage() for r in caplog.records[3:]] == ["97 more lines of this kind were left out", "news"]
