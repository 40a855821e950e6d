"""Arguments of a client that people know from ipyparallel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import ippmpi as ipp
from client.fakes import FakeHub
from ippmpi.client import options
from ippmpi.client.client import Client
from ippmpi.client.options import folder_of


def test_what_means_nothing_here_is_accepted_with_a_warning_that_says_why() -> None:
    hub = FakeHub()
    with (
        pytest.warns(UserWarning, match=r"Client\(context=...\) changes nothing: there is no ZeroMQ context"),
        pytest.warns(UserWarning, match=r"Client\(debug=...\) changes nothing: .*logger 'ippmpi'"),
        pytest.warns(UserWarning, match=r"Client\(username=...\) changes nothing: there is no Session"),
        Client(context=object(), debug=True, username="me", _connect=hub.connect) as rc,
    ):
        assert rc.ids == [0, 1, 2, 3]


def test_arguments_with_the_values_that_they_have_anyway_say_nothing() -> None:
    hub = FakeHub()
    with Client(context=None, debug=False, sshserver=None, password=None, cluster_id=None, _connect=hub.connect) as rc:
        assert len(rc) == 4


def test_what_nobody_knows_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'profle'"):
        Client(profle="x")


def test_the_old_name_of_the_file_is_used_with_a_warning(tmp_path: Path) -> None:
    with (
        pytest.warns(DeprecationWarning, match="url_or_file"),
        pytest.raises(ipp.ConnectionFileError, match="no-such-file"),
    ):
        Client(url_or_file=str(tmp_path / "no-such-file.json"))


def test_ipython_dir_says_where_the_profiles_are(tmp_path: Path) -> None:
    assert folder_of(None, None, tmp_path) == tmp_path / "profile_default"
    assert folder_of("mine", None, tmp_path) == tmp_path / "profile_mine"
    assert folder_of("mine", "/there", tmp_path) == "/there"
    assert folder_of("mine", None, None) is None
    with pytest.raises(ipp.ConnectionFileError, match=str(tmp_path / "profile_mine")):
        Client(profile="mine", ipython_dir=tmp_path, timeout=0)


def test_without_a_name_the_profile_is_that_of_the_ipython_it_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(profile_dir=SimpleNamespace(location="/home/me/.ipython/profile_work"))
    monkeypatch.setattr(options, "running_shell", lambda: shell)
    assert folder_of(None, None, None) == "/home/me/.ipython/profile_work"
    assert folder_of("other", None, None) is None


def test_closing_takes_the_linger_that_people_know() -> None:
    hub = FakeHub()
    rc = Client(_connect=hub.connect)
    rc.close(linger=1)
    rc.close(0)
    assert "closed" in repr(rc)
