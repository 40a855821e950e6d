"""The words for how a rank ended."""

from __future__ import annotations

import pytest

from ippmpi.agent.causes import Ending, describe, parse


@pytest.mark.parametrize(
    ("ending", "expected", "words"),
    [
        (Ending(signal=9), False, "killed by SIGKILL"),
        (Ending(signal=11), False, "segmentation fault (SIGSEGV)"),
        (Ending(signal=200), False, "killed by signal 200"),
        (Ending(exit_code=3), False, "exited with code 3 (os._exit or a crash in C code)"),
        (Ending(exit_code=0), False, "exited with code 0 (os._exit or a crash in C code)"),
        (Ending(exit_code=0), True, "stopped"),
        (Ending(), True, "stopped"),
        (Ending(), False, "process vanished (nothing recorded how it ended)"),
    ],
)
def test_every_ending_has_words(ending: Ending, expected: bool, words: str) -> None:
    assert describe(ending, expected=expected) == words


def test_lack_of_memory_is_only_said_of_sigkill() -> None:
    assert describe(Ending(signal=9), expected=False, out_of_memory=True).startswith("out of memory")
    assert describe(Ending(signal=11), expected=False, out_of_memory=True) == "segmentation fault (SIGSEGV)"


def test_exit_records_are_read_and_nonsense_is_refused() -> None:
    assert parse("exit 3\n") == Ending(exit_code=3)
    assert parse("signal 9\n") == Ending(signal=9)
    for nonsense in ("", "exit", "exit x", "gone 3"):
        with pytest.raises(ValueError, match=r"."):
            parse(nonsense)


def test_no_record_of_a_parent_that_writes_one_means_that_both_were_killed() -> None:
    assert "mpiexec" in describe(Ending(), expected=False, recorder=True)
    assert describe(Ending(), expected=True, recorder=True) == "stopped"
    assert describe(Ending(), expected=False, recorder=True, out_of_memory=True).startswith("out of memory")
