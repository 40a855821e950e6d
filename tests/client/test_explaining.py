from __future__ import annotations

import re
import time
from typing import Any

import pytest

from client.conftest import Pair
from helpers import eventually
from ippmpi.client.explaining import AWAY_S, Explanation, Why
from ippmpi.client.reasons import Teller, engines_text, seconds_text
from ippmpi.wire import reasons as r
from ippmpi.wire.messages import EngineRecord, Failure
from ippmpi.wire.reasons import Other, Reason


def simulate() -> None:
    """Stand for a function of the user's."""


ENGINES = {i: EngineRecord(i, i, "w", "n1" if i < 2 else "n2", 100 + i) for i in range(4)}
TELLER = Teller(ENGINES, {"c-1": "simulate"})
RUNS = Other("c-1", "", "running", [(0, 0)], 12.4)
LONG = Other("c-9", "", "running", [(0, 0)], 3.0, True)

SENTENCES = [
    (
        Reason("c-1", "waiting", r.CACHED),
        "simulate() (c-1) waits for the controller to look for its result in the cache",
    ),
    (
        Reason("c-2", "waiting", r.CACHED, others=[RUNS]),
        "task c-2 waits for the result of an equal one: simulate() (c-1), which has run for 12 s on engine 0 "
        "(rank 0 on n1)",
    ),
    (
        Reason("c-2", "waiting", r.NEEDS, others=[RUNS, Other("c-9", "prepare")], count=4),
        "task c-2 waits for simulate() (c-1), which has run for 12 s on engine 0 (rank 0 on n1); 'prepare' (c-9), "
        "which waits itself; and 2 others",
    ),
    (
        Reason("c-2", "waiting", r.NEEDS, others=[Other("c-7", "", "queued", [(2, 3)])], count=1),
        "task c-2 waits for task c-7, which is queued on engines 2-3",
    ),
    (
        Reason("c-2", "waiting", r.NO_ENGINES, coming=[("w", 1, 4)], within_s=30.0),
        "task c-2 waits for an engine: there is none; of world 'w' 1 of 4 ranks have come; it fails if that takes 30 s "
        "more",
    ),
    (
        Reason("c-2", "waiting", r.STOPPING, engines=[(0, 3)]),
        "task c-2 waits for an engine: engines 0-3 on n1, n2 were told to stop and take no more",
    ),
    (
        Reason("c-2", "queued", r.STOPPING, engines=[(1, 1)]),
        "task c-2 will not run: engine 1 (rank 1 on n1) was told to stop, and has not begun it",
    ),
    (
        Reason("c-2", "waiting", r.RESTORED, hosts=["n2"]),
        "task c-2 waits for n2 to come back: the controller was started again, and gives out no such tasks before all "
        "nodes have said what they have",
    ),
    (
        Reason("c-2", "waiting", r.BUSY, others=[RUNS] * 5, count=4, behind=3, rivals=1),
        "task c-2 waits for an engine: all engines are busy with "
        + "; ".join(["simulate() (c-1), which has run for 12 s on engine 0 (rank 0 on n1)"] * 3)
        + "; and 2 others; 3 tasks before it; 1 other may go to the same engines",
    ),
    (
        Reason("c-2", "waiting", r.BUSY, others=[RUNS], count=1, only=[(2, 3)], candidates=True, follows=True),
        "task c-2 waits for an engine: engines 2-3 on n2 (its view allows no others and it follows a task that ran "
        "there) is busy with simulate() (c-1), which has run for 12 s on engine 0 (rank 0 on n1)",
    ),
    (
        Reason("c-2", "waiting", r.BUSY, others=[RUNS], count=1, avoids=[(1, 1)], last_failure="Oops: no", retries=1),
        "task c-2 waits for an engine: the only engine is busy with simulate() (c-1), which has run for 12 s on engine "
        "0 (rank 0 on n1); engine 1 left out, where it failed or was refused (last: Oops: no; 1 retry left)",
    ),
    (
        Reason("c-1", "running", r.RUNS, label="night", engines=[(0, 2)], for_s=7300.0, bytes=5_000_000_000),
        "simulate() 'night' (c-1) has run for 2.0 h on engines 0-2 on n1, n2, or waits for its arguments (5000 MB)",
    ),
    (
        Reason("c-2", "queued", r.BEHIND, engines=[(0, 1), (3, 3)], others=[RUNS], behind=3),
        "task c-2 on engines 0-1, 3 is behind simulate() (c-1), which has run for 12 s on engine 0 (rank 0 on n1), and "
        "2 others",
    ),
    (
        Reason("c-2", "running", r.TAKEN_BACK, engines=[(7, 7)]),
        "task c-2 was cancelled: engine 7 was told, and has not answered",
    ),
    (
        Reason("c-2", "queued", r.MOVING, engines=[(0, 0)]),
        "task c-2 is taken back from engine 0 (rank 0 on n1), to be given to another engine",
    ),
    (
        Reason("c-2", "running", r.NODE_AWAY, engines=[(2, 3)], hosts=["n2"]),
        "task c-2 on engines 2-3: the controller has no connection to n2; whether it runs is not known before that is "
        "back",
    ),
    (
        Reason("c-2", "queued", r.BEHIND, engines=[(0, 0)], others=[LONG], behind=1),
        "task c-2 on engine 0 is behind task c-9, which has run for at least 3.0 s on engine 0 (rank 0 on n1)",
    ),
    (Reason("c-2", "done", r.ENDED), "task c-2 has ended"),
    (Reason("c-2", "failed", r.ENDED, engines=[(3, 3)]), "task c-2 has failed on engine 3 (rank 3 on n2)"),
    (Reason("c-2", "unknown", r.UNKNOWN), "the controller knows no task c-2, or has forgotten it"),
    (
        Reason("c-2", "running", r.RUNS, client="client:ab", client_away=True, engines=[(0, 0)], for_s=0.25),
        "task c-2 has run for 0.2 s on engine 0 (rank 0 on n1); its client (ab) is not connected",
    ),
]


@pytest.mark.parametrize(("reason", "text"), SENTENCES, ids=[reason.why for reason, _ in SENTENCES])
def test_every_reason_is_a_sentence(reason: Reason, text: str) -> None:
    assert TELLER.tell(reason) == text


def test_all_reasons_have_a_sentence() -> None:
    kinds = {value for name, value in vars(r).items() if name.isupper() and isinstance(value, str)}
    assert {reason.why for reason, _ in SENTENCES} == kinds


def test_engines_and_times_are_written_for_people() -> None:
    assert engines_text([3, 0, 1]) == "engines 0-1, 3"
    assert (engines_text([]), engines_text([5])) == ("no engine", "engine 5")
    assert [seconds_text(s) for s in (0.04, 59.6, 600, 9000)] == ["0.0 s", "60 s", "10 min", "2.5 h"]


# --- a result that is asked ---


def test_a_result_tells_what_has_come_and_why_the_rest_has_not(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(simulate)
    task = ar.msg_ids[0]
    hub.reply(task, 0, 1)
    hub.fail(task, 1, Failure("Oops", "it broke", engine=1, rank=1, host="host"))
    eventually(lambda: ar.progress == 2)
    hub.reasons = [Reason(task, "running", r.RUNS, engines=[(2, 3)], for_s=1.5, op="apply")]
    done, failed, runs = ar.explain()
    assert (done.state, done.engines, done.function) == ("done", [0], "simulate")
    assert (failed.state, failed.engines) == ("failed", [1])
    assert (runs.state, runs.why, runs.engines, runs.function) == ("running", r.RUNS, [2, 3], "simulate")
    assert repr(ar.explain()).splitlines() == [
        "done     1 of 4 results have come, from engine 0",
        "failed   [engine 1 (rank 1 on host)] Oops: it broke",
        f"running  simulate() ({task}) has run for 1.5 s on engines 2-3 on host",
    ]


def test_when_all_has_come_the_controller_is_not_asked(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[0].apply_async(simulate)
    hub.reply(ar.msg_ids[0], 0, 1)
    ar.wait(5)
    hub.deaf = True
    assert [reason.state for reason in ar.explain()] == ["done"]


def test_a_result_on_its_way_to_this_client_is_said(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[0].apply_async(simulate)
    hub.reasons = [Reason(ar.msg_ids[0], "done", r.ENDED)]
    (reason,) = ar.explain()
    assert reason.text == f"simulate() ({ar.msg_ids[0]}) has ended; its result is on the way to this client"


def test_arguments_that_this_client_still_sends_are_said(manual: Pair) -> None:
    rc, hub = manual
    hub.acknowledges = False
    ar = rc[0].apply_async(len, bytes(1_000_000))
    hub.reasons = [Reason(ar.msg_ids[0], "running", r.RUNS, engines=[(0, 0)], bytes=1_000_000)]
    (reason,) = ar.explain()
    assert reason.why == "sending"
    assert reason.text.endswith("this client is still sending its arguments")


def test_a_client_without_a_connection_says_so_soon(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[:].apply_async(simulate)
    hub.reachable, hub.deaf = False, True
    began = time.monotonic()
    (reason,) = ar.explain()
    assert time.monotonic() - began < 3 * AWAY_S
    assert (reason.state, reason.why) == ("unknown", "offline")
    assert "no connection to the controller" in reason.text
    with pytest.raises(TimeoutError, match="cannot be reached"):
        rc.explain()


def test_a_controller_that_does_not_answer_is_a_timeout(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[0].apply_async(simulate)
    hub.deaf = True
    with pytest.raises(TimeoutError, match=re.escape("did not answer 'explain' within 0.1 s")):
        ar.explain(timeout=0.1)


def test_items_of_a_map_that_are_not_sent_yet_are_counted(manual: Pair) -> None:
    rc, hub = manual
    hub.took_s = 0.5
    ar = rc.load_balanced_view().map_async(abs, range(1000))
    try:
        texts = [reason.text for reason in ar.explain() if reason.why == "not sent"]
        assert any(re.fullmatch(r"\d+ items of the map have not been sent: .*", text) for text in texts)
    finally:
        ar.cancel()


def test_a_client_explains_any_tasks(manual: Pair) -> None:
    rc, hub = manual
    ar = rc[0].apply_async(simulate)
    hub.reasons = [Reason(ar.msg_ids[0], "running", r.RUNS, engines=[(0, 0)]), Reason("other-1", "unknown", r.UNKNOWN)]
    first, second = rc.explain([ar, "other-1"])
    assert (first.function, second.text) == ("simulate", "the controller knows no task other-1, or has forgotten it")
    assert len(rc.explain()) == 2


def test_many_reasons_are_printed_in_short() -> None:
    reasons = [Why(f"c-{i}", "waiting", "busy", f"task c-{i} waits") for i in range(25)]
    explanation = Explanation([*reasons, Why("c-99", "running", "runs", "it runs")], left_out=7)
    lines = str(explanation).splitlines()
    assert lines[-2:] == ["... and 6 more: 5 waiting, 1 running", "... and 7 more tasks"]
    assert len(lines) == 22
    assert explanation[-1].task == "c-99"
    assert [each.task for each in explanation[:2]] == ["c-0", "c-1"]
    empty: Any = Explanation([])
    assert str(empty) == "nothing is pending"
