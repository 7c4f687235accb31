import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.base import devices
from bench.run import claims
from bench.run.slurm import job, memory_kills
from bench.run.slurm.job import CellFailed
from bench.run.store import Cause, CellDir, WorkState
from tests.run.slurm.fakes import SUBMISSION, submitted
from tests.run.slurm.jobs import cell_job, enter_a_job, free, planned
from tests.support.running import cell, numbers, train_dots


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In job 77_0 on node n1."""
    return enter_a_job(tmp_path, monkeypatch)


@pytest.mark.slow
def test_cell_runs_to_its_end_and_is_free_and_says_where_it_ran(tmp_path: Path) -> None:
    work = planned(tmp_path / "out")
    assert cell_job(work)() == f"{work.id}: done"
    assert work.directory.status().state is WorkState.DONE
    assert free(work)
    said = json.loads((work.directory.path / "job.json").read_text())
    assert (said["job"], said["node"], said["restarts"]) == ("77_0", "n1", 0)
    assert said["log"] == str(tmp_path / "77_0_0_log.err")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train_dots(tmp_path / "here", steps=2)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "here", "push"))


@pytest.mark.parametrize("owner", ["another submission", None])
def test_job_that_lost_its_claim_does_nothing(tmp_path: Path, owner: str | None) -> None:
    work = planned(tmp_path / "out")
    claims.release(work.directory, SUBMISSION)
    if owner is not None:
        submitted(tmp_path / "out", [work], token=owner)
    before = {path: path.read_bytes() for path in work.directory.path.iterdir()}
    assert cell_job(work)() == f"{work.id} was given free, or taken by another submission: nothing to do"
    assert {path: path.read_bytes() for path in work.directory.path.iterdir()} == before


@pytest.mark.slow
def test_failing_cell_fails_its_job_and_is_free_with_its_own_traceback(tmp_path: Path) -> None:
    work = planned(tmp_path / "out", "broken.at=1", methods="broken")
    with pytest.raises(CellFailed, match=rf"{work.id}: failed: RuntimeError: out of luck"):
        cell_job(work)()
    assert free(work)
    assert work.directory.status().state is WorkState.FAILED
    assert "RuntimeError: out of luck" in (work.directory.path / "traceback.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("counted", "cause"), [(0, Cause.KILLED), (1, Cause.OUT_OF_MEMORY)])
def test_killed_cell_ran_out_of_memory_if_the_kernel_counted_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: int, cause: Cause
) -> None:
    work = planned(tmp_path / "out", "broken.how=kill", "broken.at=1", methods="broken")
    monkeypatch.setattr(
        memory_kills, "kills", lambda: counted if (work.directory.path / "env.json").exists() else 0
    )
    with pytest.raises(CellFailed, match=str(cause)):
        cell_job(work)()
    status = work.directory.status()
    assert (status.state, status.cause) == (WorkState.FAILED, cause)
    assert status.message is not None
    assert ("--with mem=…" in status.message) == (cause is Cause.OUT_OF_MEMORY)
    assert free(work)


@pytest.mark.slow
def test_cell_killed_at_the_limit_of_its_job_is_out_of_time(tmp_path: Path) -> None:
    work = planned(tmp_path / "out", "broken.how=kill", "broken.at=1", methods="broken")
    with pytest.raises(CellFailed, match="killed at the job's time limit"):
        cell_job(work, seconds=0)()
    status = work.directory.status()
    assert (status.state, status.cause) == (WorkState.TIMEOUT, None)
    assert free(work)


@pytest.mark.slow
def test_machines_other_than_the_first_keep_no_records(tmp_path: Path, inside: SimpleNamespace) -> None:
    work = planned(tmp_path / "out")
    inside.global_rank = 1
    assert cell_job(work)() == "done"
    assert not (work.directory.path / "job.json").exists()
    assert not free(work)


def test_several_machines_meet_at_the_first_one(
    tmp_path: Path, inside: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.num_nodes, inside.node = 2, 1
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1")
    how = cell_job(planned(tmp_path / "out"), processes=4)._how(job.JobEnvironment())
    text = " ".join(how.command(planned(tmp_path / "other")))
    assert "--num_processes 8 --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1" in text
    assert "--main_process_port 20077" in text


def test_what_the_job_knows_of_gpus_reaches_the_cells_process(tmp_path: Path) -> None:
    work = planned(tmp_path / "out")
    sent = cell_job(work, gpus=2, device="cpu")._how(job.JobEnvironment())
    assert sent.variables == {devices.PROMISED: "2", devices.VARIABLE: "cpu"}
    assert cell_job(work)._how(job.JobEnvironment()).variables == {devices.VARIABLE: "auto"}


@pytest.mark.slow
def test_dead_process_of_another_machine_fails_its_task(tmp_path: Path, inside: SimpleNamespace) -> None:
    work = planned(tmp_path / "out", "broken.how=kill", "broken.at=1", methods="broken")
    inside.global_rank = 1
    with pytest.raises(CellFailed, match="a process on this machine ended with exit code -9"):
        cell_job(work)()


@pytest.mark.slow
def test_job_starts_again_on_a_cell_that_was_done_before_it(tmp_path: Path) -> None:
    work = planned(tmp_path / "out")
    job_ = cell_job(work)
    assert job_() == f"{work.id}: done"
    submitted(tmp_path / "out", [work])
    before = numbers(CellDir(work.directory.path))
    assert job_() == f"{work.id}: done"
    assert numbers(CellDir(work.directory.path)) == before
    assert free(work)
