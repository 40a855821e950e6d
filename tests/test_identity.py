from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from helpers import eventually
from ippmpi import identity


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def test_a_living_process_is_recognised(child: subprocess.Popen[bytes]) -> None:
    found = identity.identify(child.pid)
    assert found.pid == child.pid
    assert found.started > 0
    assert identity.alive(found) is True


def test_another_process_with_the_same_pid_is_not_taken_for_it(child: subprocess.Popen[bytes]) -> None:
    found = identity.identify(child.pid)
    assert identity.alive(replace(found, started=found.started - 1)) is False


def test_a_process_of_another_boot_or_machine_is_unknown() -> None:
    here = identity.identify(os.getpid())
    other = replace(here, boot="another", host="elsewhere")
    assert identity.alive(other) is None
    assert not identity.is_local(other)
    with pytest.raises(OSError, match="runs on elsewhere"):
        identity.send_signal(other, signal.SIGTERM)


def test_a_zombie_is_gone(child: subprocess.Popen[bytes]) -> None:
    found = identity.identify(child.pid)
    child.kill()
    eventually(lambda: identity.alive(found) is False)
    with pytest.raises(ProcessLookupError):
        identity.identify(child.pid)


def test_a_signal_reaches_exactly_that_process(child: subprocess.Popen[bytes]) -> None:
    found = identity.identify(child.pid)
    assert identity.send_signal(replace(found, started=1), signal.SIGTERM) is False
    assert child.poll() is None
    assert identity.send_signal(found, signal.SIGTERM) is True
    assert child.wait(10) == -signal.SIGTERM
    assert identity.send_signal(found, signal.SIGTERM) is False


def test_a_signal_for_the_group_reaches_its_members() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        member = identity.identify(int(leader.stdout.readline()))
        identity.send_signal(identity.identify(leader.pid), signal.SIGKILL, group=True)
    eventually(lambda: identity.alive(member) is False)
