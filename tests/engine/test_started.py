from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ippmpi.engine.started import MpiJob, alone, find_job
from ippmpi.errors import LaunchError

HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_FD": "9", "HYDI_CONTROL_FD": "7", "MPI_LOCALRANKID": "1"}
SRUN = {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}
PROXY = [["sh", "-c", "ipengine"], ["/opt/hydra_pmi_proxy", "--control-port", "n1:4711", "--proxy-id", "0"]]


def test_a_process_that_was_started_by_itself_is_of_no_job() -> None:
    assert find_job({"PATH": "/bin", "SLURM_JOB_ID": "5", "SLURM_PROCID": "0"}, []) is None
    assert alone().startswith("single-")


def test_a_rank_of_open_mpi_knows_its_namespace() -> None:
    one = find_job({"OMPI_COMM_WORLD_SIZE": "16", "PMIX_NAMESPACE": "prterun-n1-77@1", "PMIX_RANK": "3"}, [])
    assert one is not None
    assert one.size == 16
    assert one != find_job({"OMPI_COMM_WORLD_SIZE": "16", "PMIX_NAMESPACE": "prterun-n1-78@1"}, [])


def test_a_rank_of_mpich_is_told_by_where_its_mpiexec_listens() -> None:
    one = find_job(HYDRA, PROXY)
    assert one is not None
    assert one.size == 4
    assert one == find_job(HYDRA | {"PMI_RANK": "2"}, [PROXY[1]])
    other = [["hydra_pmi_proxy", "--control-port", "n1:4712"]]
    assert one != find_job(HYDRA, other)
    intel = [["hydra_bstrap_proxy", "--upstream-host", "n1", "--upstream-port", "4711", "--usize", "-1"]]
    assert one == find_job(HYDRA, intel)


def test_a_task_of_srun_is_a_rank_if_slurm_or_the_user_says_so() -> None:
    assert find_job(SRUN, []) is None
    one = find_job(SRUN, [], mpi=True)
    assert one is not None
    assert one.size == 8
    assert find_job(SRUN | {"PMI_RANK": "3", "PMI_SIZE": "8"}, []) == one
    assert find_job(SRUN | {"PMIX_RANK": "3"}, []) == one
    assert find_job(SRUN | {"SLURM_STEP_ID": "3"}, [], mpi=True) != one


def test_an_mpiexec_that_uses_srun_itself_is_asked_first() -> None:
    assert find_job(HYDRA | SRUN, PROXY) == find_job(HYDRA, PROXY)


def test_without_a_sign_of_the_starter_the_batch_job_names_the_world() -> None:
    one = find_job({"PMI_SIZE": "2", "PBS_JOBID": "17.server"}, [])
    assert isinstance(one, MpiJob)
    assert one == find_job({"PMI_SIZE": "2", "PBS_JOBID": "17.server"}, [["bash"]])
    assert one != find_job({"PMI_SIZE": "2", "PBS_JOBID": "17.server", "PALS_APID": "3"}, [])


@pytest.mark.parametrize("environ", [{"PMI_SIZE": "2"}, {"PMIX_RANK": "0"}, {"PMI_SIZE": "many", "JOB_ID": "3"}])
def test_a_rank_of_an_unknown_job_is_told_what_to_say(environ: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match=r"--world NAME \(the same for all ranks of the job\) --size N"):
        find_job(environ, [])


def ranks(mpiexec: Path) -> list[str]:
    """Return what each of three ranks finds out."""
    code = "from ippmpi.engine.started import find_job; print(*find_job())"
    as_root = dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    oversubscribe = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    argv = [str(mpiexec), "-n", "3", "sh", "-c", f'{sys.executable} -P -c "{code}"; true']
    environment = {**os.environ, **as_root, **oversubscribe}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return done.stdout.splitlines()


def check(mpiexec: Path) -> None:
    first, second = ranks(mpiexec), ranks(mpiexec)
    assert len(first) == 3
    assert len(set(first)) == 1
    assert first[0].endswith(" 3")
    assert first[0] != second[0]


@pytest.mark.mpi
def test_all_ranks_of_an_mpiexec_find_the_same_job_and_the_next_one_another() -> None:
    check(Path(sys.executable).with_name("mpiexec"))


@pytest.mark.openmpi
def test_all_ranks_of_open_mpi_find_the_same_job_too(openmpi: Path) -> None:
    check(openmpi / "bin" / "mpiexec")
