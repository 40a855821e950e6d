from __future__ import annotations

from pathlib import Path

import pytest

from ippmpi import config
from ippmpi.config import ClusterSettings, ControllerSettings


def load(folder: Path, environ: dict[str, str] | None = None, **given: object) -> ClusterSettings:
    return config.load(ClusterSettings, {"profile_dir": folder} | given, environ or {})


def test_defaults_then_file_then_environment_then_arguments(tmp_path: Path) -> None:
    assert load(tmp_path).engines == "mpi"
    (tmp_path / "ippmpi.toml").write_text('[cluster]\nengines = "file"\nn = 3\nhosts = ["a:1", "b"]\n')
    assert load(tmp_path).engines == "file"
    assert load(tmp_path).hosts == ("a:1", "b")
    environ = {"IPPMPI_CLUSTER_ENGINES": "environment", "IPPMPI_CLUSTER_HOSTS": "c, d:2"}
    assert load(tmp_path, environ).engines == "environment"
    assert load(tmp_path, environ).hosts == ("c", "d:2")
    found = load(tmp_path, environ, engines="argument", n=None)
    assert (found.engines, found.n) == ("argument", 3)


def test_the_file_of_the_profile_counts_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "ippmpi.toml").write_text("[cluster]\nn = 7\n")
    found = config.load(ClusterSettings, {}, {"IPPMPI_CLUSTER_PROFILE_DIR": str(tmp_path)})
    assert found.n == 7
    assert found.folder == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cluster]\nm = 1\n", r"\[cluster\]: no setting 'm' of the cluster; have profile, .*engines"),
        ('[cluster]\nn = "many"\n', "n must be int, not 'many'"),
        ("[cluster]\nn = true\n", "n must be int, not True"),
        ("[cluster]\nn = 1.5\n", "n must be int, not 1.5"),
        ("[cluster]\nhosts = 3\n", "hosts must be a list of texts, not 3"),
        ("[clutser]\nn = 1\n", r"no table \[clutser\]; have \[controller\]"),
        ("[cluster\n", "ippmpi.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ippmpi.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="IPPMPI_CLUSTER_N: n must be int, not 'x'"):
        load(tmp_path, {"IPPMPI_CLUSTER_N": "x"})


def test_seconds_may_be_whole_or_text(tmp_path: Path) -> None:
    assert load(tmp_path, engine_timeout_s=5).engine_timeout_s == 5.0
    assert load(tmp_path, engine_timeout_s="2.5").engine_timeout_s == 2.5


def test_replace_checks_like_load(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert config.replace(settings, n="4").n == 4
    with pytest.raises(ValueError, match="no setting 'm'"):
        config.replace(settings, m=4)


@pytest.mark.parametrize("role", config.ROLES)
def test_every_setting_is_documented_and_has_an_option(role: type[config.Settings]) -> None:
    options = config.options(role)
    assert [o.name for o in options] == list(role.FIELDS)
    for option in options:
        assert option.text, option.name
        assert all(flag.startswith("-") and "_" not in flag for flag in option.flags)
        assert config.variable(role, option.name) in config.table()
    flags = [flag for option in options for flag in option.flags]
    assert len(set(flags)) == len(flags)


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        ControllerSettings().port = 3  # type: ignore[misc]


def test_profile_folders_follow_ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    (tmp_path / "profile_b").mkdir()
    (tmp_path / "profile_a").mkdir()
    assert config.profile_folder() == tmp_path / "profile_default"
    assert config.profile_folder("x") == tmp_path / "profile_x"
    assert config.profile_folder("x", tmp_path / "y") == tmp_path / "y"
    assert [p.name for p in config.profile_folders()] == ["profile_a", "profile_b"]
    monkeypatch.delenv("IPYTHONDIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config.profile_folder() == tmp_path / "home/.ipython/profile_default"


def test_children_do_not_believe_to_be_ranks_of_our_own_mpi_job() -> None:
    rank = dict.fromkeys(
        ("PMI_RANK", "PMI_FD", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_ess_base_jobid", "PRTE_LAUNCHED"), "1"
    )
    user = dict.fromkeys(("PATH", "OMPI_MCA_btl", "OMPI_ALLOW_RUN_AS_ROOT", "PMIX_MCA_gds", "SLURM_JOB_ID"), "1")
    assert config.child_environment({"X": "2"}, rank | user) == user | {"X": "2"}
