from __future__ import annotations

import pytest

from ippmpi.config import ClusterSettings, ControllerSettings, EngineSettings, Settings
from ippmpi.traits import table
from ippmpi.traits.table import meaning, role_of

OPTIONS = {"daemonize", "environment", "file", "log_to_file", "mpi", "ports", "restore", "work_dir"}
"""Not settings, but options of the commands."""


@pytest.mark.parametrize("role", [ClusterSettings, ControllerSettings, EngineSettings])
def test_every_trait_is_a_setting_or_not_needed_or_refused_with_a_reason(role: type[Settings]) -> None:
    for traits in table._CLASSES[role].values():
        for name, means in traits.items():
            assert sum(map(bool, (means.setting, means.unneeded, means.refused))) == 1, name
            if means.setting:
                assert means.setting in role.FIELDS or means.setting in OPTIONS, name


def test_a_trait_is_known_by_its_class_and_role() -> None:
    found = meaning(ControllerSettings, "IPController.ip")
    assert found is not None
    assert found.setting == "ip"
    assert meaning(ClusterSettings, "IPController.ip") is None
    assert meaning(ControllerSettings, "IPEngine.ip") is None
    assert role_of("IPController.ip") is ControllerSettings
    assert role_of("IPEngine.use_mpi") is EngineSettings
    assert role_of("Nobody.knows") is None
