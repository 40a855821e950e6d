from __future__ import annotations

from pathlib import Path

import pytest

from ippmpi import plugins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "some_plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "first.py").write_text("import collections\nfrom collections import OrderedDict\nclass First: pass\n")
    (folder / "second.py").write_text("class Second: pass\nclass Third: pass\n")
    (folder / "_shared.py").write_text("class Shared: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_plugins"


def test_names_are_the_files_but_not_the_shared_parts(package: str) -> None:
    assert plugins.names(package) == ["first", "second"]


def test_a_plug_in_is_the_one_public_class_of_its_file_in_any_case(package: str) -> None:
    assert plugins.load(package, "FIRST").__name__ == "First"


def test_an_unknown_name_is_answered_with_those_that_exist(package: str) -> None:
    with pytest.raises(LookupError, match=r"no 'lsf' in some_plugins; have first, second"):
        plugins.load(package, "lsf")


def test_a_file_with_two_public_classes_is_refused(package: str) -> None:
    with pytest.raises(LookupError, match=r"exactly one public class, has Second, Third"):
        plugins.load(package, "second")


def test_every_launcher_can_be_loaded_and_knows_its_name() -> None:
    names = plugins.names("ippmpi.launchers")
    assert {"local", "mpi"} <= set(names)
    assert [plugins.load("ippmpi.launchers", name).name for name in names] == names  # type: ignore[attr-defined]
