"""Output of many ranks at once, on a real cluster: nothing waits for ever, equal lines are one, all is its caller's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ippmpi as ipp
from clusters import running
from helpers import eventually
from ippmpi import connection

N = 64
LINES = 1000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def rc(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, N, "local") as (_, rc):
        yield rc


PRINTING = f"""
for line in range({LINES}):
    print("step", line, "of a loop that prints the same everywhere")
    if line % 100 == 7:
        print("rank", rank, "has its own to say")
"""


def test_64_ranks_print_a_thousand_lines_each_and_nothing_waits(
    rc: ipp.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    rc[:].scatter("rank", range(N), flatten=True).get(30)
    started = time.monotonic()
    result = rc[:].execute(PRINTING)
    with result.stream_output():
        assert result.wait(60)
        assert rc[0].apply_sync(abs, -1) == 1  # the way is free again
    took_s = time.monotonic() - started
    shown = capsys.readouterr().out.splitlines()
    assert took_s < 30
    raw = result.stdout
    assert [len(text.splitlines()) for text in raw] == [LINES + LINES // 100] * N  # exact, whatever was shown
    assert sum(lines_of(line) for line in shown) == N * (LINES + LINES // 100)
    assert len(shown) < N * LINES / 2  # mostly folded, how much depends on who was when
    result.display_outputs()
    assert len(capsys.readouterr().out.splitlines()) == LINES + N * LINES // 100


def lines_of(line: str) -> int:
    """Return for how many ranks a line stands."""
    ranks = line.partition("]")[0].lstrip("[").removeprefix("stdout:")
    spans = [span.split("-") for span in ranks.split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def test_a_short_word_of_all_ranks_is_one_line(rc: ipp.Client, capsys: pytest.CaptureFixture[str]) -> None:
    rc[:].execute("print('converged')").display_outputs()
    assert capsys.readouterr().out == f"[0-{N - 1}] converged\n"


def test_another_client_gets_only_the_output_that_it_asks_for(rc: ipp.Client, folder: Path) -> None:
    with ipp.Client(connection.path(folder, "client")) as other:
        mine = other[3].execute("print('mine')")
        result = rc[:4].execute("print('not yours')")
        result.get(10)
        mine.get(10)
        assert mine.stdout == "mine\n"
        eventually(lambda: not other.requests.pending)
        followed = other.get_result(result.msg_ids[0])
        followed.get(10)
        assert followed.stdout == ["not yours\n"] * 4
