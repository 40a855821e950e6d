"""Each policy in a hub to which everything happens, and in a real cluster that was told to use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters import running
from core.village import live
from ippmpi import config, plugins

NAMES = plugins.names("ippmpi.policies")


@pytest.mark.parametrize("name", NAMES)
def test_with_any_policy_nobodys_work_is_lost(name: str) -> None:
    assert live("policies", 1000, name) >= 1000


@pytest.mark.parametrize("name", [name for name in NAMES if name != "leastload"])
def test_a_cluster_uses_the_policy_of_its_settings(name: str, tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text(f'[controller]\npolicy = "{name}"\n')
    with running(tmp_path, 2, "local") as (_, rc):
        view = rc.load_balanced_view()
        assert view.map_sync(abs, range(-500, 0)) == list(range(500, 0, -1))
        with view.temp_flags(targets=1):
            assert view.apply_async(abs, -1).get(10) == 1
        assert {view.apply_async(abs, 1).get(10) for _ in range(20)} == {1}


def test_the_setting_names_every_policy() -> None:
    (line,) = [line for line in config.table().splitlines() if "`[controller] policy`" in line]
    assert all(name in line for name in NAMES)
