"""What is installed: one package and nothing else, launchers and templates inside it, all of it from git."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

import pytest

from ippmpi import native, plugins

ROOT = Path(__file__).parent.parent
BUILT = {"ippmpi/native/bin/ippmpi-rank"}  # what CMake adds
MOVED = {"launchers": "ippmpi/launchers", "job_templates": "ippmpi/job_templates"}


def from_a_neutral_folder(code: str, tmp_path: Path) -> str:
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout


# --- what is installed here ---


@pytest.fixture
def installed() -> Distribution:
    try:
        return distribution("ippmpi")
    except PackageNotFoundError:
        pytest.skip("ippmpi is not installed here, only on the path (make install)")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["launchers", "job_templates", "tests", "policies", "helpers"])
def test_only_ippmpi_can_be_imported(name: str, tmp_path: Path) -> None:
    code = f"import importlib.util, ippmpi; print(importlib.util.find_spec({name!r}))"
    assert from_a_neutral_folder(code, tmp_path) == "None\n"


def test_every_launcher_and_policy_loads(tmp_path: Path) -> None:
    code = """
from ippmpi import plugins
for package in ("ippmpi.launchers", "ippmpi.policies"):
    for name in plugins.names(package):
        print(package, name, plugins.load(package, name))
"""
    lines = from_a_neutral_folder(code, tmp_path).splitlines()
    assert [line for line in lines if line.startswith("ippmpi.launchers mpi ")]
    assert [line for line in lines if line.startswith("ippmpi.policies ")]


def test_launchers_refuse_their_bare_name() -> None:
    source = (ROOT / "launchers" / "__init__.py").read_text()
    with pytest.raises(ImportError, match=r"ippmpi\.launchers"):
        exec(compile(source, "launchers/__init__.py", "exec"), {"__name__": "launchers"})


@pytest.mark.usefixtures("installed")
def test_templates_can_be_read() -> None:
    expected = {path.name for path in (ROOT / "job_templates").iterdir() if path.name != "__pycache__"}
    installed = files("ippmpi").joinpath("job_templates")
    for name in expected:
        assert installed.joinpath(name).read_text()


def test_the_parent_of_ranks_is_there() -> None:
    assert Path(native.rank_script()).read_text().startswith("#!/bin/sh\n")
    assert Path(native.rank_command("/tmp/x")[0]).name in ("ippmpi-rank", "sh")


def test_the_commands_people_know_are_there(installed: Distribution) -> None:
    scripts = installed.entry_points.select(group="console_scripts")
    assert {script.name for script in scripts} == {"ippmpi", "ipcluster", "ipcontroller", "ipengine"}
    for script in scripts:
        assert callable(script.load())


def test_plugin_names_are_sorted_and_public() -> None:
    names = plugins.names("ippmpi.launchers")
    assert list(names) == sorted(names)
    assert not [name for name in names if name.startswith("_")]


# --- the wheel that this tree makes ---


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Built by way of an sdist, as a release is: in a clone with exactly the files that git knows."""
    known = tracked()
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in known:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-Im", "build", "--outdir", str(out), str(tree)], capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def tracked() -> list[str]:
    """Files of the tree that git knows or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no git: apt-get install git")
    if listed.returncode != 0:
        pytest.skip(f"cannot be had here: this tree is no git clone ({listed.stderr.strip()})")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.slow
def test_the_wheel_holds_one_package(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"ippmpi", "ippmpi-0.1.0.dist-info"}


@pytest.mark.slow
def test_the_wheel_holds_what_git_holds(wheel: zipfile.ZipFile) -> None:
    expected = set()
    for name in tracked():
        top, _, rest = name.partition("/")
        if top == "ippmpi":
            expected.add(name)
        elif top in MOVED:
            expected.add(f"{MOVED[top]}/{rest}")
    shipped = {name for name in wheel.namelist() if name.startswith("ippmpi/") and not name.endswith("/")}
    assert shipped - BUILT == expected


@pytest.mark.slow
def test_the_wheel_serves_every_python_and_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert Path(str(wheel.filename)).name.startswith("ippmpi-0.1.0-py3-none-")
    assert "ippmpi-0.1.0.dist-info/licenses/LICENSE" in wheel.namelist()


@pytest.mark.slow
def test_programs_in_the_wheel_may_be_executed(wheel: zipfile.ZipFile) -> None:
    for name in BUILT & set(wheel.namelist()):
        assert wheel.getinfo(name).external_attr >> 16 & 0o111 == 0o111
