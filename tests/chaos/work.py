"""A client that submits random work until it is told to stop, then waits for all of it: kinds of work.

``work.py CONNECTION FOLDER NAME SEED``: lines of JSON go to ``FOLDER/NAME.told``, those of the tasks' own to
``FOLDER/runs``. It stops at the end of its standard input. The seed fixes what is asked for, though not
when, nor (as engines come and go) of whom.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import select
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import ippmpi as ipp
from chaos.oracle import ALWAYS, FIRST, NEVER, Asked, Outcome
from clusters import defined

MOST_OUTSTANDING = 40
LARGEST = 6_000_000  # bytes of an array: well beyond what travels inline
WAIT_S = 120.0  # for everything to end, once nobody does harm any more

TASKS = defined("""
    def task(path, key, fails, pause_s, value):
        import os, time, zlib
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{key} {os.getpid()} {time.monotonic():.3f}\\n".encode())
        os.close(fd)
        print(key, "begins")
        time.sleep(pause_s)
        print(key, "ends")
        if fails == "first":
            try:
                os.close(os.open(f"{path}.{key}", os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                fails = "never"
        if fails != "never":
            raise ValueError(key)
        return key, zlib.crc32(value)

    def item(args):
        import os, time
        path, key, pause_s = args
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{key} {os.getpid()} {time.monotonic():.3f}\\n".encode())
        os.close(fd)
        print(key)
        time.sleep(pause_s)
        os.write(1, f"{key} ends\\n".encode())  # as C code would
        return key
""")

SPEAKING = """
import os, time
_fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(_fd, f"{key} {{os.getpid()}} {{time.monotonic():.3f}}\\n".encode())
os.close(_fd)
for _n in range(5):
    print("{key}", _n)
"""


@dataclass(slots=True)
class Job:
    """What is under way: ``wrong`` says what is wrong with a part's value, "" if nothing is."""

    asked: Asked
    result: Any
    wrong: Callable[[int, Any], str]


class Worker:
    """Submits, remembers, and tells."""

    def __init__(self, connection: str, folder: Path, name: str, seed: int) -> None:
        self.random = random.Random(f"{seed}/{name}")
        self.name = name
        self.runs = str(folder / "runs")
        self.tells = os.open(folder / f"{name}.told", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.rc = ipp.Client(connection, timeout=60)
        self.balanced = self.rc.load_balanced_view()
        self.jobs: dict[str, Job] = {}
        self.recent: list[tuple[str, Any]] = []  # what others can be told to wait for
        self.number = 0
        self.kinds = (self.direct, self.everywhere, self.one, self.chain, self.array, self.map, self.speak, self.abort)

    def tell(self, what: str, **fields: Any) -> None:
        os.write(self.tells, json.dumps({"what": what, **fields}).encode() + b"\n")

    def submit(self, asked: Asked, start: Callable[[], Any], wrong: Callable[[int, Any], str]) -> Any:
        """Tell what is asked for, then ask for it."""
        self.tell("asked", **dataclasses.asdict(asked))
        try:
            result = start()
        except (ipp.NoEnginesRegistered, ipp.EngineError, LookupError) as error:
            self.tell("refused", key=asked.key, text=str(error))
            return None
        self.jobs[asked.key] = Job(asked, result, wrong)
        return result

    def key(self) -> str:
        self.number += 1
        return f"{self.name}-{self.number}"

    def ids(self) -> list[int]:
        """Return some engines, at least one if there are any."""
        ids = self.rc.ids or [0]  # which is then refused
        return self.random.sample(ids, max(1, int(self.random.random() * len(ids))))

    # --- kinds of work ---

    def a_task(self, key: str, fails: str = NEVER) -> tuple[tuple[Any, ...], Callable[[int, Any], str]]:
        value = self.random.randbytes(self.random.choice((1, 100, 10_000)))
        expected = (key, zlib.crc32(value))
        pause_s = self.random.choice((0.0, 0.0, 0.001, 0.01, 0.1, 0.5))
        return (TASKS.task, self.runs, key, fails, pause_s, value), lambda _, got: differs(got, expected)

    def direct(self) -> None:
        key = self.key()
        call, wrong = self.a_task(key, self.random.choice((NEVER, NEVER, NEVER, ALWAYS)))
        ids = self.ids()[:1]
        self.submit(Asked(key, "direct", fails=call[3]), lambda: self.rc[ids[0]].apply_async(*call), wrong)

    def everywhere(self) -> None:
        key, ids = self.key(), self.ids()
        call, wrong = self.a_task(key)
        self.submit(Asked(key, "everywhere", parts=len(ids)), lambda: self.rc[ids].apply_async(*call), wrong)

    def one(self) -> None:
        key = self.key()
        retries = self.random.choice((0, 0, 1, 3))
        call, wrong = self.a_task(key, self.random.choice((NEVER, NEVER, FIRST, ALWAYS)))
        asked = Asked(key, "balanced", retries=retries, fails=call[3])
        result = self.submit(asked, lambda: self.place(call, retries=retries), wrong)
        self.remember(key, result)

    def place(self, call: tuple[Any, ...], **flags: Any) -> Any:
        with self.balanced.temp_flags(**flags):
            return self.balanced.apply_async(*call)

    def remember(self, key: str, result: Any) -> None:
        if result is not None:
            self.recent = [*self.recent[-5:], (key, result)]

    def chain(self) -> None:
        key = self.key()
        call, wrong = self.a_task(key)
        count = self.random.randint(1, 3)
        before = self.random.sample(self.recent, min(count, len(self.recent)))
        retries = self.random.choice((0, 2))
        asked = Asked(key, "after others", retries=retries, after=tuple(name for name, _ in before))
        after = [result for _, result in before]
        result = self.submit(asked, lambda: self.place(call, retries=retries, after=after or None), wrong)
        self.remember(key, result)

    def array(self) -> None:
        """Push an array and pull it again: right behind each other, so the same one comes back."""
        pushed, pulled, ids = self.key(), self.key(), self.ids()[:1]
        size = int(LARGEST ** self.random.random())
        data = np.frombuffer(self.random.randbytes(size), np.uint8)
        name = f"array_{self.name}"
        push, pull = Asked(pushed, "push", counted=False), Asked(pulled, "pull", counted=False)
        self.submit(push, lambda: self.rc[ids[0]].push({name: data}, block=False), lambda _, got: differs(got, None))
        digest = (size, zlib.crc32(data))

        def wrong(_: int, got: Any) -> str:
            return differs((got.size, zlib.crc32(got)), digest)

        if pushed in self.jobs:
            self.submit(pull, lambda: self.rc[ids[0]].pull(name, block=False), wrong)

    def map(self) -> None:
        key, count = self.key(), self.random.randint(1, 20)
        items = [(self.runs, f"{key}/{n}", self.random.choice((0.0, 0.01))) for n in range(count)]
        balanced, chunksize = self.random.random() < 0.7, self.random.randint(1, 4)

        def start() -> Any:
            if balanced:
                return self.balanced.map_async(TASKS.item, items, chunksize=chunksize)
            return self.rc[:].map_async(TASKS.item, items)

        expected = [item[1] for item in items]
        asked = Asked(key, "map", items=count)
        self.submit(asked, start, lambda _, got: differs(got, expected))

    def speak(self) -> None:
        key, ids = self.key(), self.ids()[:1]
        code = SPEAKING.format(path=self.runs, key=key)
        asked = Asked(key, "execute")
        self.submit(asked, lambda: self.rc[ids[0]].execute(code, silent=False, block=False), lambda _, got: "")

    def abort(self) -> None:
        key = self.key()
        call, wrong = self.a_task(key)
        result = self.submit(Asked(key, "aborted"), lambda: self.place(call), wrong)
        if result is not None:
            self.tell("aborted", key=key)
            self.rc.abort(result, block=False)

    # --- ends ---

    def look(self) -> None:
        """Tell of everything that has ended since."""
        for key, job in list(self.jobs.items()):
            if job.result.ready():
                del self.jobs[key]
                self.tell("ended", key=key, outcomes=[dataclasses.asdict(o) for o in self.outcomes(job)])

    def outcomes(self, job: Job) -> list[Outcome]:
        try:
            if job.asked.items:
                values = [job.result.get(timeout=10)]
            else:
                values = job.result.get(timeout=10, return_exceptions=True)
                values = values if isinstance(values, list) and job.asked.kind == "everywhere" else [values]
        except Exception as error:  # whatever it is, the oracle judges it
            values = error.errors[:1] if isinstance(error, ipp.CompositeError) else [error]
        foreign = [
            line for line in printed(job.result) if not line.startswith((f"{job.asked.key} ", f"{job.asked.key}/"))
        ]
        if foreign:
            return [Outcome(f"printed {foreign[:5]}, which is another's")] * len(values)
        return [outcome_of(value, job.wrong, index) for index, value in enumerate(values)]

    def run(self) -> bool:
        """Work until standard input ends; return whether all of it has ended."""
        while not select.select([sys.stdin], [], [], self.random.choice((0.0, 0.0, 0.01, 0.05)))[0]:
            self.look()
            if len(self.jobs) < MOST_OUTSTANDING:
                self.random.choice(self.kinds)()
            else:
                time.sleep(0.02)
            if not self.rc.ids:
                time.sleep(0.1)
        deadline = time.monotonic() + WAIT_S
        while self.jobs and time.monotonic() < deadline:
            self.look()
            time.sleep(0.02)
        for key, job in self.jobs.items():
            self.tell("open", key=key, text=repr(job.result))
        return not self.jobs


def printed(result: Any) -> list[str]:
    """Return the lines that tasks of this work have printed; some may be missing when an agent or controller died."""
    texts = result.stdout
    lines = [line for text in ([texts] if isinstance(texts, str) else texts) for line in text.splitlines()]
    return [line for line in lines if re.match(r"c\d+-\d+[ /]", line)]


def differs(got: Any, expected: Any) -> str:
    """Say how *got* is not what was expected, "" if it is."""
    return "" if got == expected else f"{str(got)[:200]!r} instead of {str(expected)[:200]!r}"


def outcome_of(value: Any, wrong: Callable[[int, Any], str], index: int) -> Outcome:
    """Make the outcome of a value or of an error that stands in its place."""
    if not isinstance(value, BaseException):
        return Outcome(wrong(index, value))
    pid = value.engine_info.get("pid") if isinstance(value, ipp.RemoteError) else None
    name = type(value).__name__
    if isinstance(value, ipp.EngineError):
        name = "EngineError"
    elif isinstance(value, ipp.RemoteError):
        name = value.ename
    return Outcome(error=name, text=str(value)[:500], pid=pid if isinstance(pid, int) and pid > 0 else None)


def main() -> int:
    connection, folder, name, seed = sys.argv[1:]
    worker = Worker(connection, Path(folder), name, int(seed))
    worker.tell("ready", fds=len(os.listdir("/proc/self/fd")))
    done = worker.run()
    worker.tell("done", fds=len(os.listdir("/proc/self/fd")), rss=rss())
    worker.rc.close()
    return 0 if done else 3


def rss() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
