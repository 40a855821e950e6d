"""Staying in the foreground: a signal that ends us ends what we started first."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from ippmpi.cluster import Cluster

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_S = 0.2  # how often processes that should run are looked at


class Ended(BaseException):
    """A signal asked us to end; not an Exception, so that nobody takes it for a failure."""


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Raise ``Ended`` here when a signal asks us to end; once, so that the clean-up is not interrupted."""

    def end(signum: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(signal.Signals(signum).name)

    before = {each: signal.signal(each, end) for each in ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def watch(cluster: Cluster) -> None:
    """Return when the controller has ended; say it when a set of engines ends before."""
    ended: set[str] = set()
    while cluster.running:
        for key, launcher in cluster.engines.items():
            if key not in ended and launcher.poll() is not None:
                ended.add(key)
                print(f"engine set {key!r} has ended: {launcher.failure('its engines were stopped')}", flush=True)
        time.sleep(LOOK_S)


def wait_ended(cluster: Cluster, key: str) -> int:
    """Wait until a set of engines, or the controller, has ended; return the exit code that stands for it."""
    launcher = cluster.engines[key]
    while cluster.running and launcher.poll() is None:
        time.sleep(LOOK_S)
    launcher.wait(cluster.settings.stop_timeout_s)  # with the controller its engines end too
    return 1 if launcher.poll() else 0
