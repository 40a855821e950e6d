from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from ippmpi.config import ClusterSettings, ControllerSettings, EngineSettings
from ippmpi.traits.files import has_file, of_config, of_file, of_profile


def test_a_generated_configuration_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "ipcontroller_config.py").write_text(
        "# Configuration file for ipcontroller.\n\nc = get_config()  #noqa\n\n"
        "# c.IPController.location = ''\nc.IPController.ip = '*'\nc.TaskScheduler.scheme_name = 'lru'\n"
    )
    assert has_file(tmp_path, ControllerSettings)
    assert of_profile(tmp_path, ControllerSettings) == {"ip": "*", "policy": "lru"}
    assert of_profile(tmp_path, ClusterSettings) == {}


def test_a_file_may_load_another_one_and_json_wins(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("c.Cluster.n = 3\nc.Cluster.engines = 'local'\n")
    (tmp_path / "ipcluster_config.py").write_text("load_subconfig('base.py')\nc.MPILauncher.mpi_cmd = ['mpirun']\n")
    (tmp_path / "ipcluster_config.json").write_text(json.dumps({"Cluster": {"n": 5}}))
    assert of_profile(tmp_path, ClusterSettings) == {"n": 5, "engines": "local", "mpiexec": "mpirun"}


def test_what_cannot_be_had_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    config = {"IPEngine": {"url": "tcp://x", "enable_nanny": False, "use_mpi": True}, "Other": {"x": 1}, "y": 2}
    assert of_config(config, EngineSettings, "here") == {"mpi": True}
    assert [r.getMessage() for r in caplog.records] == [
        "here: IPEngine.url is not possible: an address is not enough, the file holds the keys: --file",
        "here: Other.x has no meaning here",
    ]


def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ipcluster_config.py"
    file.write_text("c.Cluster.n = 1 / 0\n")
    with pytest.raises(ValueError, match=r"ipcluster_config.py: ZeroDivisionError"):
        of_file(file, ClusterSettings)
    file.write_text("c.IPController.db_class = 'MongoDB'\n")
    with pytest.raises(ValueError, match=r"IPController.db_class MongoDB is not supported"):
        of_file(file, ControllerSettings)
