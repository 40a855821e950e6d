"""Staying in the foreground: a signal that ends us ends what we started first."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType

from ippmpi.cluster import Cluster
from ippmpi.errors import ClusterError, IppmpiError, LaunchError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_S = 0.2  # how often processes that should run are looked at

MOST_RESTARTS = 20
RESTARTS_WITHIN_S = 600.0
"""A controller that is killed, or fails, more often than this is not started again."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
BACK_OFF_FORGETS_S = 30.0
"""The pause before a restart doubles with each restart in so many seconds; the first is at once."""


class Ended(BaseException):
    """A signal asked us to end; not an Exception, so that nobody takes it for a failure."""


PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that are for the engines; batch systems send them some time before a job's end."""


@contextlib.contextmanager
def passing_signals(cluster: Cluster) -> Iterator[None]:
    """Pass signals of users and batch systems on to the engines of *cluster*."""
    got: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def pass_on() -> None:
        while (signum := got.get()) is not None:
            print(f"{signal.Signals(signum).name}: passed on to the engines", flush=True)
            try:
                cluster.signal_engines_sync(signum)
            except (IppmpiError, OSError) as error:
                print(f"error: {error}", flush=True)

    before = {each: signal.signal(each, lambda signum, _: got.put(signum)) for each in PASSED_ON}
    thread = threading.Thread(target=pass_on, name="ippmpi-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        got.put(None)
        thread.join()


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


def supervise(cluster: Cluster) -> None:
    """Return when the controller has ended for good; else it is started again, a limited number of times.

    It has ended for good when it was stopped: with exit code 0, or its cluster file is gone.
    """
    attempts: deque[float] = deque(maxlen=MOST_RESTARTS)
    while True:
        watch(cluster)
        code = None if cluster.controller is None else cluster.controller.poll()
        if not code:
            return
        how = f"was ended by signal {-code}" if code < 0 else f"has failed with exit code {code}"
        if not _start_again(cluster, how, attempts):
            return


def _start_again(cluster: Cluster, how: str, attempts: deque[float]) -> bool:
    """Start the controller again, however often it takes; return False if that is given up or was not wanted."""
    while cluster.cluster_file is not None and cluster.cluster_file.exists():  # else it was stopped, not killed
        now = time.monotonic()
        if len(attempts) == MOST_RESTARTS and now - attempts[0] < RESTARTS_WITHIN_S:
            print(
                f"the controller {how}; it was started again {MOST_RESTARTS} times in {now - attempts[0]:.0f} s: "
                "giving up, the cluster is stopped",
                flush=True,
            )
            return False
        time.sleep(_pause_s(attempts, now))
        attempts.append(now)
        print(f"the controller {how}; starting it again", flush=True)
        try:
            cluster.restore_controller_sync()
        except LaunchError as error:
            print(f"error: {error}", flush=True)
            how = "did not start"
            continue
        except ClusterError:  # stopped in the meantime
            return False
        assert cluster.controller is not None
        print(f"controller: pid {cluster.controller.identity.pid}, restored", flush=True)
        return True
    return False


def _pause_s(attempts: Sequence[float], now: float) -> float:
    """Return how long to wait before the next attempt: longer after each that was not long ago."""
    recent = sum(now - each < BACK_OFF_FORGETS_S for each in attempts)
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**recent) if recent else 0.0


def watch(cluster: Cluster) -> None:
    """Return when the controller has ended; say it when a set of engines ends before."""
    ended: set[str] = set()
    while cluster.running:
        for key, launcher in list(cluster.engines.items()):  # other threads may add some
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
