"""``publish_data``: what a running function shows, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ippmpi as ipp
from clusters import defined, running
from helpers import eventually
from ippmpi import connection, datapub

MAIN = defined("""
    def simulate(path):
        import os, time
        from ippmpi.datapub import publish_data
        publish_data({"step": 0, "pid": os.getpid()})
        step = 0
        while not os.path.exists(path):
            step += 1
            publish_data({"step": step})
            time.sleep(0.01)
        publish_data({"step": "last"})
        return step
""")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def rc(folder: Path) -> Iterator[ipp.Client]:
    with running(folder, 2, "local") as (_, rc):
        yield rc


def steps(result: Any) -> list[Any]:
    return [data.get("step") for data in result.data]


def test_published_data_is_seen_while_the_function_runs_and_the_last_of_it_stays(
    rc: ipp.Client, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    result = rc[:].apply_async(MAIN.simulate, str(end))
    eventually(lambda: all(step and step > 3 for step in steps(result)), what="steps on both engines")
    assert not result.ready()
    seen = steps(result)
    eventually(lambda: all(now > then for now, then in zip(steps(result), seen, strict=True)))
    end.touch()
    result.get(10)
    assert steps(result) == ["last", "last"]
    pids = [rc[i].apply_sync(__import__("os").getpid) for i in (0, 1)]
    assert [data["pid"] for data in result.data] == pids  # named once, and still there
    assert result.metadata[0].data["step"] == "last"


def test_a_single_result_and_a_balanced_one_have_bare_data(rc: ipp.Client, tmp_path: Path) -> None:
    (tmp_path / "end").touch()
    for view in (rc[1], rc.load_balanced_view()):
        result = view.apply_async(MAIN.simulate, str(tmp_path / "end"))
        result.get(10)
        assert result.data["step"] == "last"
        assert rc[0].apply_async(abs, 1).data == {}


def test_another_client_that_follows_a_task_sees_its_data(rc: ipp.Client, folder: Path, tmp_path: Path) -> None:
    end = tmp_path / "end"
    result = rc[0].apply_async(MAIN.simulate, str(end))
    eventually(lambda: result.data)
    with ipp.Client(connection.path(folder, "client")) as other:
        followed = other.get_result(result.msg_ids[0])
        assert isinstance(followed, ipp.AsyncHubResult)
        eventually(lambda: followed.data.get("step"))
        end.touch()
        followed.get(10)
        assert followed.data["step"] == "last"


def test_data_that_cannot_be_published_is_an_error_of_the_task(rc: ipp.Client) -> None:
    with pytest.raises(TypeError, match="names to values"):
        rc[0].apply_sync(ipp.publish_data, [1])
    with pytest.raises(ValueError, match="too many to publish"):
        rc[0].apply_sync(ipp.publish_data, {"a": bytes(2_000_000)})


def test_outside_an_engine_nothing_can_be_published() -> None:
    assert ipp.publish_data is datapub.publish_data
    with pytest.raises(RuntimeError, match="on an engine"):
        datapub.publish_data({"a": 1})
