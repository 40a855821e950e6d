"""Each test is a process of its own, whose pipes are read from outside, as the agent does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from helpers import eventually

PREPARE = """
import ctypes, os, subprocess, sys, time
from ippmpi.engine.output import capture
output = capture()
os.write(output.last_words, f"{output.stdout_fd} {output.stderr_fd}\\n".encode())
output.prepare()
libc = ctypes.CDLL(None)
"""


class Printer:
    """A process that runs *code* with its output captured, then flushes and waits to be ended."""

    def __init__(self, code: str, end: str = "output.flush()") -> None:
        script = f"{PREPARE}\n{code}\n{end}\nos.write(output.last_words, b'end\\n')\ntime.sleep(60)"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr
        self.last_words = self.process.stderr
        fds = self.last_words.readline().split()
        self._pipes = [os.open(f"/proc/{self.process.pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK) for fd in fds]
        self.read = [b"", b""]

    def wait_for_end(self) -> None:
        assert self.last_words.readline() == "end\n"

    def look(self, number: int) -> bytes:
        """Return all that has come so far through stdout (0) or stderr (1)."""
        with contextlib.suppress(BlockingIOError):
            self.read[number] += os.read(self._pipes[number], 1 << 20)
        return self.read[number]

    def stop_reading(self) -> None:
        """Close the pipes' other readers."""
        while self._pipes:
            os.close(self._pipes.pop())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stderr):
            assert stream
            stream.close()
        self.stop_reading()


@pytest.fixture
def printer(request: pytest.FixtureRequest) -> Callable[..., Printer]:
    def start(code: str, **options: str) -> Printer:
        made = Printer(code, **options)
        request.addfinalizer(made.close)
        return made

    return start


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        ("print('python', end='')", b"python", b""),
        ("print('error', file=sys.stderr)", b"", b"error\n"),
        ("sys.__stdout__.write('kept')", b"kept", b""),
        ("libc.printf(b'from C')", b"from C", b""),
        ("libc.perror(b'C says')", b"", b"C says: "),
        ("os.write(1, b'raw'); os.write(2, b'raw too')", b"raw", b"raw too"),
        ("subprocess.run(['sh', '-c', 'echo child; echo wrong >&2'])", b"child\n", b"wrong\n"),
        ("print('\\udc80 é')", b"\\udc80 \xc3\xa9\n", b""),
        ("sys.stdout.close()", b"", b""),
        ("sys.stdout = None", b"", b""),
        ("print('in:', repr(sys.stdin.read()))", b"in: ''\n", b""),
    ],
)
def test_what_is_printed_is_in_the_pipe_after_a_flush(
    printer: Callable[..., Printer], code: str, stdout: bytes, stderr: bytes
) -> None:
    made = printer(code)
    made.wait_for_end()
    assert made.look(0).startswith(stdout)
    assert made.look(1).startswith(stderr)
    assert bool(made.read[0]) == bool(stdout)
    assert bool(made.read[1]) == bool(stderr)


@pytest.mark.parametrize(
    "code", ["print('line')", "libc.puts(b'line')", "libc.printf(b'line\\n')", "subprocess.run(['echo', 'line'])"]
)
def test_lines_arrive_while_the_code_runs(printer: Callable[..., Printer], code: str) -> None:
    made = printer(code, end="time.sleep(60)")
    assert eventually(lambda: made.look(0)) == b"line\n"


def test_what_python_and_c_print_comes_in_order_line_by_line(printer: Callable[..., Printer]) -> None:
    made = printer("for i in range(50):\n  print('p', i)\n  libc.printf(b'c %d\\n', i)\n  os.write(1, b'o\\n')")
    made.wait_for_end()
    assert made.look(0).split(b"\n")[:-1] == [x for i in range(50) for x in (b"p %d" % i, b"c %d" % i, b"o")]


def test_a_reader_that_goes_away_is_no_broken_pipe(printer: Callable[..., Printer]) -> None:
    made = printer(
        "import signal\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "os.write(output.last_words, b'ready\\n')\n"
        "signal.sigwait([signal.SIGUSR1])\n"
        "print('nobody reads this')\n"
    )
    assert made.last_words.readline() == "ready\n"
    made.stop_reading()
    made.process.send_signal(signal.SIGUSR1)
    made.wait_for_end()


def test_fortran_is_told_not_to_hold_back(printer: Callable[..., Printer]) -> None:
    made = printer(
        "print(subprocess.run('echo $GFORTRAN_UNBUFFERED_PRECONNECTED', shell=True, capture_output=True).stdout)"
    )
    made.wait_for_end()
    assert made.look(0) == b"b'1\\n'\n"


def test_a_child_does_not_inherit_the_read_ends(printer: Callable[..., Printer]) -> None:
    made = printer(
        "print(subprocess.run(['ls', '/proc/self/fd'], capture_output=True, close_fds=False).stdout.split())"
    )
    made.wait_for_end()
    assert made.look(0) in (b"[b'0', b'1', b'2', b'3']\n", b"[b'0', b'1', b'2']\n")
