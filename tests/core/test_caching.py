"""Tasks with a key: what is cached answers, equal tasks run once, and nothing waits for ever."""

from __future__ import annotations

import msgspec
import pytest

from core.house import ALICE, BOB, INLINE, House, agent, records, small_house
from ippmpi.core.effects import Release, Shelve
from ippmpi.core.hub import Hub
from ippmpi.core.limits import Limits
from ippmpi.core.restoring import Past, PastTask
from ippmpi.errors import ProtocolError
from ippmpi.policies.leastload import LeastLoad
from ippmpi.wire.messages import (
    Abort,
    CacheKey,
    Content,
    Dependency,
    Failure,
    Held,
    Placement,
    RegisterEngines,
    Reply,
    Submit,
)

VALUE = Content(inline=b"value")
LARGE = Content(size=1000, transfer=7)


def house(engines: int = 2) -> House:
    made = small_house(engines)
    made.client(BOB)
    return made


def outcomes(h: House) -> list[tuple[str, int, bytes]]:
    return [(r.task, r.engine, r.content.inline) for r in h.sent(Reply) if r.failure is None]


def test_a_task_with_a_key_is_looked_for_before_it_runs() -> None:
    h = house()
    task = h.submit(cache="aa")
    assert (h.recalls(), h.runs()) == ([(task, "aa")], [])
    assert h.query("queue_status", {"verbose": True})["unassigned"] == [task]
    h.recalled(task)
    assert [name for _, name, _ in h.runs()] == [task]
    h.reply(task, 0, content=VALUE)
    assert h.remembered() == [("aa", VALUE)]


def test_what_is_cached_ends_the_task_on_no_engine_and_is_kept_like_any_result() -> None:
    h = house()
    task = h.submit(cache="aa")
    h.recalled(task, VALUE)
    assert outcomes(h) == [(task, -1, b"value")]
    assert [type(m) for m in h.kept()] == [Reply]
    assert not h.remembered()
    assert not h.live(task)
    (reply,) = h.sent(Reply)
    assert reply.started == reply.completed == 5.0


def test_a_task_without_a_key_is_not_looked_for() -> None:
    h = house()
    task = h.submit()
    assert (h.recalls(), len(h.runs())) == ([], 1)
    h.reply(task, 0, content=VALUE)
    assert h.remembered() == []


def test_errors_are_not_cached() -> None:
    h = house()
    task = h.submit(cache="aa")
    h.recalled(task)
    h.fail(task, 0)
    assert h.remembered() == []
    assert h.failures() == [(task, 0, "code")]


def test_a_retried_task_is_cached_once_it_succeeds() -> None:
    h = house()
    task = h.submit(cache="aa", placement=Placement(retries=1))
    h.recalled(task)
    h.fail(task, 0)
    h.reply(task, 1, content=VALUE)
    assert h.remembered() == [("aa", VALUE)]


def test_equal_tasks_at_the_same_time_run_once() -> None:
    h = house()
    first, second, third = h.submit(cache="aa"), h.submit(cache="aa"), h.submit(cache="aa", peer=BOB)
    assert h.recalls() == []
    h.recalled(first)
    assert len(h.runs()) == 1
    h.reply(first, 0, content=VALUE)
    assert h.recalls() == [(second, "aa"), (third, "aa")]
    h.recalled(second, VALUE)
    h.recalled(third, VALUE)
    assert h.sent(Reply, to=BOB)[0].content == VALUE
    assert len(h.runs(ever=True)) == 1


def test_others_with_another_key_do_not_wait() -> None:
    h = house()
    h.recalled(h.submit(cache="aa"))
    other = h.submit(cache="bb")
    assert h.recalls() == [(other, "bb")]


def test_those_that_waited_for_one_that_was_found_are_looked_for_too() -> None:
    h = house()
    first, second = h.submit(cache="aa"), h.submit(cache="aa")
    h.recalled(first, VALUE)
    assert h.recalls() == [(second, "aa")]


def test_if_a_value_could_not_be_cached_one_of_those_that_waited_runs_and_the_others_wait_for_that() -> None:
    h = house()
    first, second, third = (h.submit(cache="aa") for _ in range(3))
    h.recalled(first)
    h.reply(first, 0, content=VALUE)
    h.recalled(second)
    ((_, task, (engine,)),) = h.runs()
    assert task == second
    h.recalled(third)
    assert h.runs() == []
    h.reply(second, engine, content=VALUE)
    assert h.recalls() == [(third, "aa")]


def test_if_the_code_fails_those_that_waited_run_each_on_its_own() -> None:
    h = house()
    first, second, third = (h.submit(cache="aa") for _ in range(3))
    h.recalled(first)
    h.fail(first, 0)
    assert sorted(name for _, name, _ in h.runs()) == sorted([second, third])


def test_if_the_one_that_runs_is_taken_back_or_lost_the_next_one_runs() -> None:
    h = house()
    first, second, third = (h.submit(cache="aa") for _ in range(3))
    h.recalled(first)
    h.handle(ALICE, Abort(1, [first]))
    h.reply(first, 0, Failure("TaskAborted", "", kind="TaskAborted"))
    assert [name for _, name, _ in h.runs()] == [second]
    h.lose(1 if h.hub.ledger.engines[1].balanced else 0)
    assert [name for _, name, _ in h.runs()] == [third]


def test_a_task_that_waits_for_the_cache_can_be_taken_back() -> None:
    h = house()
    first, second = h.submit(cache="aa"), h.submit(cache="aa")
    h.handle(ALICE, Abort(1, [first]))
    assert h.failures() == [(first, -1, "TaskAborted")]
    assert [name for _, name, _ in h.runs()] == [second]
    h.recalled(first, LARGE)
    assert [e for e in h.last if isinstance(e, Release)] == [Release(LARGE)]


def test_a_task_that_waits_for_the_cache_or_for_an_equal_one_runs_out_of_time() -> None:
    h = house()
    first = h.submit(cache="aa")
    second = h.submit(cache="aa", placement=Placement(timeout_s=1.0))
    h.recalled(first)
    h.tick(2.0)
    assert h.failures() == [(second, -1, "TaskTimeout")]
    assert h.texts() == ["an equal task that runs did not end within 1 s"]


def test_a_large_value_whose_client_is_gone_is_put_on_the_shelf() -> None:
    h = house()
    task = h.submit(cache="aa")
    h.recalled(task)
    h.took(h.hub.gone(ALICE, "gone"))
    h.reply(task, 0, content=LARGE)
    assert h.remembered() == [("aa", LARGE)]
    assert Shelve(LARGE) in h.last


def test_without_engines_a_cached_value_is_found_and_a_missing_one_is_an_error_at_once() -> None:
    h = House()
    h.client(ALICE)
    key = CacheKey("aa", "f", engineless=True)
    for task, found in (("a-1", VALUE), ("a-2", None)):
        h.handle(ALICE, Submit(task, "apply", [], [INLINE], placement=Placement(), cache=key))
        h.recalled(task, found)
    assert h.failures() == [("a-2", -1, "NoEnginesRegistered")]
    assert outcomes(h) == []
    assert h.texts() == ["no result is cached, and no engine is registered that could find one"]


def test_a_task_waits_for_engines_that_its_client_had_known() -> None:
    h = House()
    h.client(ALICE)
    task = h.submit(cache="aa")
    h.recalled(task)
    h.node([0], 1)
    assert [name for _, name, _ in h.runs()] == [task]


def test_others_may_depend_on_a_cached_task_but_cannot_follow_it() -> None:
    h = house()
    task = h.submit(cache="aa")
    after = h.submit(placement=Placement(after=Dependency([task])))
    follow = h.submit(placement=Placement(follow=Dependency([task])))
    h.recalled(task, VALUE)
    assert [name for _, name, _ in h.runs()] == [after]
    assert (follow, -1, "ImpossibleDependency") in h.failures()


@pytest.mark.parametrize(
    "message",
    [
        Submit("a-1", "apply", [], [INLINE], placement=Placement(after=Dependency(["x"])), cache=CacheKey("aa")),
        Submit("a-1", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("")),
        Submit("a-1", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("../../etc")),
        Submit("a-1", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("a" * 129)),
        Submit("a-1", "apply", [0], [INLINE], cache=CacheKey("aa")),
    ],
)
def test_a_wrong_key_fails_the_task(message: Submit) -> None:
    h = house()
    h.handle(ALICE, message)
    assert [kind for _, _, kind in h.failures()] == ["ProtocolError"]
    assert h.recalls() == []


def test_a_key_with_an_endless_name_is_refused() -> None:
    h = house()
    message = Submit("a-1", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("aa", "f" * 20_000))
    with pytest.raises(ProtocolError, match="a name of 20000 characters"):
        h.handle(ALICE, message)


def test_after_a_restart_what_had_not_ended_is_looked_for_again_and_equal_tasks_still_run_once() -> None:
    h = House()
    h.hub = Hub(LeastLoad(), Limits())
    submits = [
        Submit(f"a-{i}", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("aa", "f")) for i in range(3)
    ]
    h.took(h.hub.restore(Past(tasks=[PastTask(s.task, ALICE, {}, s) for s in submits])))
    assert h.recalls() == [("a-0", "aa")]
    h.client(ALICE)
    h.node([0], 1)
    h.recalled("a-0")
    assert [name for _, name, _ in h.runs()] == ["a-0"]
    h.reply("a-0", 0, content=VALUE)
    assert h.recalls() == [("a-1", "aa"), ("a-2", "aa")]


def restored(h: House, *, before: bool) -> list[str]:
    """Restore two equal tasks of which an engine has the second; *before* the cache has answered, or after."""
    h.hub = Hub(LeastLoad(), Limits())
    submits = [
        Submit(f"a-{i}", "apply", [], [INLINE], placement=Placement(), cache=CacheKey("aa", "f")) for i in range(2)
    ]
    engine = msgspec.structs.replace(records([0])[0], id=0)
    h.took(h.hub.restore(Past(engines=[engine], tasks=[PastTask(s.task, ALICE, {}, s) for s in submits])))
    assert h.recalls() == [("a-0", "aa")]
    if not before:
        h.recalled("a-0")
    h.client(ALICE)
    h.took(h.hub.connected(agent(), {}))
    h.handle(agent(), RegisterEngines("w", 1, [engine], tasks=[[Held("a-1")]]))
    ran = [name for _, name, _ in h.runs()]
    if before:
        h.recalled("a-0")
        ran += [name for _, name, _ in h.runs()]
    return ran


@pytest.mark.parametrize("before", [True, False])
def test_after_a_restart_the_one_that_an_engine_has_leads(before: bool) -> None:
    h = House()
    assert restored(h, before=before) == []
    h.reply("a-1", 0, content=VALUE)
    assert h.recalls() == [("a-0", "aa")]


def test_a_task_that_no_store_had_leads_when_its_client_sends_it_again() -> None:
    h = House()
    h.hub = Hub(LeastLoad(), Limits())
    engine = msgspec.structs.replace(records([0])[0], id=0)
    h.took(h.hub.restore(Past(engines=[engine])))
    h.took(h.hub.connected(agent(), {}))
    h.handle(agent(), RegisterEngines("w", 1, [engine], tasks=[[Held("alice-1")]]))
    h.client(ALICE)
    first, second = h.submit(cache="aa"), h.submit(cache="aa")
    assert (first, h.recalls(), h.runs(ever=True)) == ("alice-1", [], [])
    h.reply(first, 0, content=VALUE)
    assert h.recalls() == [(second, "aa")]
