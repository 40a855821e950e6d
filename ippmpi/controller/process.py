"""The controller process: its parts put together, signals, and a good end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from typing import cast

from ippmpi import plugins
from ippmpi.config import ControllerSettings
from ippmpi.connection import make_private_folder
from ippmpi.controller.absences import Patience
from ippmpi.controller.address import bind_address, check_free
from ippmpi.controller.admission import admit, here
from ippmpi.controller.controller import Controller
from ippmpi.controller.place import Place
from ippmpi.core.hub import Hub
from ippmpi.core.limits import Limits
from ippmpi.core.policy import Policy
from ippmpi.core.restoring import Past
from ippmpi.errors import ClusterError
from ippmpi.net.loop import Loop
from ippmpi.net.router import Router
from ippmpi.store.cache import Cache
from ippmpi.store.cachefile import CacheLimits
from ippmpi.store.keeper import Store
from ippmpi.store.records import StoreLimits
from ippmpi.store.spool import Spool, raise_descriptor_limit
from ippmpi.wire.messages import Hello

log = logging.getLogger(__name__)

POLICIES = "ippmpi.policies"
RECORDS = "records.sqlite"
STORES = ("disk", "none")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINGER_S = 1.0
"""How long the last messages may take to leave."""

MOST_ERRORS = 100
"""The loop goes on after an error of its own, but not for ever: then something is broken for good."""


def serve(settings: ControllerSettings, ready_fd: int | None = None, *, restore: bool = False) -> None:
    """Run a controller until it is stopped; write one line to *ready_fd* once it can be reached.

    With *restore* it goes on where one that was killed has ended: same keys, addresses, engines and requests.

    Raises:
        ClusterError, ConnectionFileError, ValueError, LookupError, OSError: it cannot start; the text says why.
    """
    raise_descriptor_limit()
    if settings.store not in STORES:
        raise ValueError(f"the setting store must be one of {', '.join(STORES)}, not {settings.store!r}")
    policy = cast(Policy, plugins.load(POLICIES, settings.policy)())
    bound = bind_address(settings.ip) if settings.ip else ""
    if bound and not restore:
        check_free(bound, settings.port)
    place = Place(settings, restore=restore)
    port = place.port or settings.port
    try:
        if bound and restore:
            check_free(bound, port)
        _serve(settings, place, Hub(policy, Limits()), f"{bound}:{port}" if bound else "", ready_fd)
    except BaseException:
        if not (restore or place.published):  # else it can be restored
            place.remove()
        raise
    place.remove()
    log.info("the controller has ended")


def _serve(settings: ControllerSettings, place: Place, hub: Hub, tcp: str, ready_fd: int | None) -> None:
    loop = Loop()
    folder = place.store_folder
    make_private_folder(folder)
    spool = Spool(folder / "spool", settings.spool_bytes)
    limits = StoreLimits(settings.store_requests, settings.store_bytes, settings.store_age_s, 3 * settings.store_bytes)
    try:
        store = Store(
            folder / RECORDS, loop.call_soon, limits, restore=place.restored, records=settings.store == "disk"
        )
    except sqlite3.Error as error:
        what = "it is kept as it is; make room, then start again" if "full" in str(error) else "nothing was changed"
        raise ClusterError(f"cannot use the store {folder / RECORDS}: {error}; {what}") from error

    def end() -> None:
        cache.close()
        store.close()  # hands its last `done` calls to the loop, which makes them before it stops
        loop.stop()

    patience = Patience(
        settings.upload_gone_s,
        settings.client_gone_s,
        settings.agent_gone_s,
        settings.stop_timeout_s,
        settings.away_bytes,
    )
    cache_limits = CacheLimits(settings.cache_entries, settings.cache_bytes, settings.cache_age_s)
    cache = Cache(place.cache_folder, loop.call_soon, cache_limits)
    controller = Controller(loop, hub, store, spool, cache, patience=patience, on_end=end)
    try:
        router = Router(
            loop,
            unix=place.socket,
            tcp=tcp or None,
            keys=place.keys,
            on_hello=lambda hello, role: _about(settings, hello, role),
            on_message=controller.on_message,
            on_peer=controller.on_peer,
            here=here(),
        )
        controller.attach(router)
        try:
            if place.restored:
                _restore(controller, store)
            else:
                spool.tidy()
            address = place.publish(tcp.rpartition(":")[0], router.tcp_port)
            log.info("listening on %s", ", ".join(filter(None, (place.socket, address))))
            with _signals(loop, controller):
                _tell(ready_fd)
                _run(loop)
        finally:
            router.close(LINGER_S)
    finally:
        store.close()
        cache.close()
        spool.close()
        loop.close()


def _restore(controller: Controller, store: Store) -> None:
    past, store.past = store.past, Past()  # it may be large, and is needed once
    unfinished = sum(task.submit is not None for task in past.tasks)
    log.info("restored: %d engines, %d requests, %d of them unfinished", len(past.engines), len(past.tasks), unfinished)
    controller.restore(past)


def _about(settings: ControllerSettings, hello: Hello, role: str) -> Mapping[str, object]:
    return {**admit(hello, role), "cluster_id": settings.cluster_id}


def _run(loop: Loop) -> None:
    for _ in range(MOST_ERRORS):
        try:
            loop.run()
            return
        except Exception:  # a bug in one callback must not end everybody's work
            log.exception("the controller goes on after an error of its own")
    raise RuntimeError(f"the controller ends after {MOST_ERRORS} errors of its own; its log has them")


def _tell(ready_fd: int | None) -> None:
    if ready_fd is not None:
        with contextlib.suppress(BrokenPipeError):  # whoever waited has given up
            os.write(ready_fd, b"ready\n")
        os.close(ready_fd)


@contextlib.contextmanager
def _signals(loop: Loop, controller: Controller) -> Iterator[None]:
    """Stop on SIGTERM, SIGINT and SIGHUP, unless whoever started this process wanted them ignored."""
    read, write = os.pipe()  # not a socket pair: sockets are counted
    os.set_blocking(read, False)
    os.set_blocking(write, False)

    def on_signal() -> None:
        for number in os.read(read, 16):
            controller.stop(f"got {signal.Signals(number).name}")

    former = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in former.items() if handler is not signal.SIG_IGN]
    # the handler runs at a bad moment (the loop may be in the middle of anything), the byte is read at a good one
    old_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in taken:
        signal.signal(number, lambda *_: None)
    loop.add_reader(read, on_signal)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, former[number])
        signal.set_wakeup_fd(old_fd)
        loop.remove_reader(read)
        os.close(read)
        os.close(write)
