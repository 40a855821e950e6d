"""Batch scripts as users of ipyparallel have them, run as they are: by ``bash``, with the names of commands in PATH."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import alive, eventually
from ippmpi.client.client import Client

mpi = pytest.mark.mpi

WORK = """
import sys
import ippmpi as ipp
rc = ipp.Client(profile=sys.argv[1], timeout=30)
rc.wait_for_engines(int(sys.argv[2]), timeout=60)
def place():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
print("ranks", rc[:].apply_sync(place), flush=True)
rc.close()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the commands in PATH, a folder of profiles, and a program that works with the engines."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ipcluster", "ipcontroller", "ipengine"):
        program = folder / name
        program.write_text(f"#!{sys.executable} -P\nimport sys\nfrom ippmpi.cli import {name}\nsys.exit({name}())\n")
        program.chmod(0o755)
    (tmp_path / "work.py").write_text(WORK)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -P "$@"\n')
    (folder / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in list(os.environ):
        if name.startswith(("IPP_", "SLURM_", "PBS_")):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def script(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run a script; what it started is ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(text: str, **environment: str) -> subprocess.Popen[str]:
        (home / "job.sh").write_text(text)
        with (home / "said").open("a") as said:
            process = subprocess.Popen(
                ["bash", "job.sh"],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                text=True,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def said(home: Path) -> str:
    return (home / "said").read_text()


def finish(process: subprocess.Popen[str], home: Path) -> str:
    """Return what the script said, once it has ended well."""
    try:
        code = process.wait(90)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the script does not end; it said:\n{said(home)}")
    assert code == 0, said(home)
    return said(home)


def profile_files(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "ipython").rglob("*") if p.is_file())


RANKS = "ranks [(0, 4), (1, 4), (2, 4), (3, 4)]\n"


@mpi
def test_a_pbs_script_that_starts_controller_and_engines_by_hand(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    (home / "nodes").write_text(f"{socket.gethostname()}\n" * 4)
    process = script(
        """#!/bin/sh
#PBS -N ipython
#PBS -l nodes=1:ppn=4
#PBS -V
cd $PBS_O_WORKDIR
ipcontroller --profile=pbs --ip=* &
mpiexec -n 4 ipengine --profile=pbs --mpi &
python work.py pbs 4
kill %1
wait
""",
        PBS_JOBID="17.server",
        PBS_NODEFILE=str(home / "nodes"),
        PBS_O_WORKDIR=str(home),
    )
    assert RANKS in finish(process, home)
    assert profile_files(home) == []


@pytest.mark.openmpi
def test_the_same_with_the_mpiexec_of_open_mpi(
    script: Callable[..., subprocess.Popen[str]], home: Path, openmpi: Path
) -> None:
    process = script(
        """#!/bin/bash
ipcontroller --profile=pbs &
mpiexec -n 4 --oversubscribe ipengine --profile=pbs --mpi &
python work.py pbs 4
kill %1
wait
""",
        PATH=f"{openmpi / 'bin'}:{os.environ['PATH']}",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    )
    assert RANKS in finish(process, home)
    assert profile_files(home) == []


@mpi
def test_a_script_that_says_cluster_id_and_profile_folder_in_the_environment(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = script(
        """#!/bin/bash
export IPP_PROFILE_DIR=$PWD/here
export IPP_CLUSTER_ID=run17
ipcontroller --init --nodb --hwm=0 --log-level=DEBUG 2> controller.log &
sleep 0.1
mpiexec -n 2 ipengine --mpi --log-to-file=True --timeout=60 &
python -c "
import ippmpi as ipp
rc = ipp.Client(profile_dir='here', cluster_id='run17', timeout=30)
rc.wait_for_engines(2, timeout=60)
print('hosts', len(rc), flush=True)
rc.shutdown(hub=True)
"
wait
"""
    )
    text = finish(process, home)
    assert "hosts 2\n" in text
    log = (home / "controller.log").read_text()
    assert "ipcontroller: note: --hwm is not needed: how much is handed ahead follows the time that tasks take" in log
    assert "DEBUG" in log
    assert [p.name[:15] for p in (home / "here").rglob("*") if p.is_file()] == ["ipengine-run17-"] * 2  # the logs


@mpi
def test_ipcluster_start_with_a_profile_that_says_mpi(script: Callable[..., subprocess.Popen[str]], home: Path) -> None:
    profile = home / "ipython" / "profile_mpi"
    profile.mkdir(parents=True)
    (profile / "ipcluster_config.py").write_text(
        "c = get_config()  # noqa\n"
        "c.Cluster.engine_launcher_class = 'ipyparallel.cluster.launcher.MPIEngineSetLauncher'\n"
        "c.MPILauncher.mpi_args = ['-env', 'FROM_MPIEXEC', 'yes']\n"
        "c.Cluster.delay = 5\n"
    )
    (profile / "ipcontroller_config.py").write_text("c.IPController.location = '127.0.0.1'\n")
    process = script(
        """#!/bin/sh
ipcluster start -n 4 --profile=mpi --daemonize --delay=1 || exit 1
ipcluster list
grep '"location"' $IPYTHONDIR/profile_mpi/security/ipcontroller-client.json
python work.py mpi 4
python -c "
import os, ippmpi as ipp
print(ipp.Client(profile='mpi')[0].apply_sync(os.getenv, 'FROM_MPIEXEC'))"
ipcluster stop --profile=mpi
"""
    )
    text = finish(process, home)
    assert RANKS in text
    assert "\nyes\n" in text
    assert '"location": "127.0.0.1"' in text
    assert "(4 engines)" in text
    assert profile_files(home) == ["ipcluster_config.py", "ipcontroller_config.py"]


@mpi
def test_ipcluster_in_the_background_with_the_class_of_a_launcher(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = script(
        """#!/bin/bash
ipcluster start -n 4 --engines=MPIEngineSetLauncher --cluster-id=$PBS_JOBID --profile=p \\
    --Cluster.engine_timeout=120 --IPController.location=127.0.0.1 -- --ip=127.0.0.1 --scheme=lru &
python -c "
import ippmpi as ipp
rc = ipp.Client(profile='p', cluster_id='17', timeout=30)
rc.wait_for_engines(4, timeout=60)
print('engines', rc.ids, flush=True)
"
ipcluster engines -n 1 --engines=local --cluster-id=17 --profile=p --daemonize
ipcluster status --cluster-id=17 --profile=p -o json
ipcluster stop 17 --profile=p
wait
""",
        PBS_JOBID="17",
    )
    text = finish(process, home)
    assert "engines [0, 1, 2, 3]" in text
    assert "(5 engines)" in text
    assert profile_files(home) == []


@mpi
def test_an_engine_with_mpi_but_without_mpiexec_is_a_world_of_one(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = script(
        """#!/bin/bash
ipcontroller --profile=a &
ipengine --profile=a --mpi &
ipengine --profile=a --mpi &
python work.py a 2
kill %1
wait
"""
    )
    assert "ranks [(0, 1), (0, 1)]\n" in finish(process, home)
    assert profile_files(home) == []


def test_an_engine_takes_its_connection_from_the_environment_and_does_not_pass_it_on(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = script(
        """#!/bin/bash
ipcontroller --profile=a &
file=$IPYTHONDIR/profile_a/security/ipcontroller-engine.json
until [ -e $file ]; do sleep 0.05; done
IPP_CONNECTION_INFO=$(cat $file) ipengine --profile=elsewhere &
python -c "
import os, ippmpi as ipp
rc = ipp.Client(profile='a', timeout=30)
rc.wait_for_engines(1, timeout=60)
print('variable', rc[0].apply_sync(os.getenv, 'IPP_CONNECTION_INFO'), flush=True)
rc.shutdown(hub=True)
"
wait
"""
    )
    assert "variable None\n" in finish(process, home)


def test_a_connection_of_ipyparallel_in_the_environment_is_refused_with_the_reason(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = script("ipengine || echo code $?\n", IPP_CONNECTION_INFO='{"key": "secret", "registration": 1}')
    text = finish(process, home)
    assert "the variable IPP_CONNECTION_INFO belongs to ipyparallel, not to ippmpi" in text
    assert "secret" not in text
    assert "code 1\n" in text


SRUN = """#!/bin/sh
# what Slurm's srun -n N --mpi=none PROGRAM does, on this machine
n=$2; shift 2
i=0
while [ $i -lt $n ]; do
    SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$n SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    i=$((i + 1))
done
wait
"""


def test_srun_without_mpi_starts_engines_each_by_itself(
    script: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    (home / "bin" / "srun").write_text(SRUN)
    (home / "bin" / "srun").chmod(0o755)
    process = script(
        """#!/bin/bash
#SBATCH --ntasks=2
ipcontroller --profile=slurm --ip='*' &
srun -n 2 ipengine --profile=slurm &
python -c "
import ippmpi as ipp
rc = ipp.Client(profile='slurm', timeout=30)
rc.wait_for_engines(2, timeout=60)
print('engines', rc.ids, len(rc.worlds), flush=True)
rc.shutdown(hub=True)
"
wait
""",
        SLURM_JOB_ID="5",
        SLURM_NTASKS="2",
    )
    assert "engines [0, 1] 2\n" in finish(process, home)


def test_sigusr1_goes_to_the_engines_and_ends_nothing(script: Callable[..., subprocess.Popen[str]], home: Path) -> None:
    process = script("exec ipcluster start -n 1 --engines=local --profile=p\n")
    eventually(lambda: "stop:" in said(home), 30, "the cluster is ready")
    with contextlib.closing(Client(profile="p")) as rc:
        rc[0].execute(
            "import signal, time; got = []; signal.signal(signal.SIGUSR1, lambda *a: got.append(1))", block=True
        )
        process.send_signal(signal.SIGUSR1)
        eventually(lambda: rc[0]["got"] == [1], what="the engine got the signal")
    assert alive(process.pid)
