from __future__ import annotations

import subprocess
import sys

import pytest

from ippmpi import cli, config
from ippmpi.cli import dispatch
from ippmpi.cli.parser import CLUSTER, make_parser, settings_of
from ippmpi.config import ClusterSettings
from ippmpi.errors import ClusterError


def test_every_setting_of_a_cluster_is_an_option_of_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.ipcluster(["start", "--help"])
    said = capsys.readouterr().out
    for option in config.options(ClusterSettings):
        for flag in option.flags:
            assert flag in said


@pytest.mark.parametrize("command", CLUSTER)
def test_every_command_explains_itself_under_both_names(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for main, argv in ((cli.main, ["cluster", command]), (cli.ipcluster, [command])):
        with pytest.raises(SystemExit, match="0"):
            main([*argv, "--help"])
        assert CLUSTER[command][0].split()[0] in capsys.readouterr().out


def test_the_line_that_people_know_is_understood() -> None:
    args = make_parser("ipcluster", ("cluster",)).parse_args(["start", "--engines=MPI", "-n", "4", "--ip", "*"])
    given = {k: v for k, v in settings_of(args, ClusterSettings).items() if v is not None}
    assert given == {"engines": "MPI", "n": "4", "controller_ip": "*"}
    assert args.module == "ippmpi.cli.start"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["clutser"], "invalid choice: 'clutser'"),
        ([], "the following arguments are required: COMMAND"),
        (["cluster", "start", "--eng", "mpi"], "unrecognized arguments: --eng"),
    ],
)
def test_a_mistake_in_the_line_is_explained(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
    assert text in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ippmpi import cli\n"
        "try: cli.main(['cluster', 'start', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('zmq', 'numpy', 'IPython', 'rich', 'msgspec', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "text"),
    [(ClusterError("it is so"), "it is so"), (KeyError("no such set"), "no such set"), (ValueError("bad"), "bad")],
)
def test_an_error_is_told_without_quotes(error: Exception, text: str) -> None:
    assert dispatch.text_of(error) == text
