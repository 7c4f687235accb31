import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from submitit.core.utils import DelayedSubmission

from bench.run import claims
from bench.run.slurm import job
from bench.run.slurm.job import CellFailed
from bench.run.store import Cause, WorkState
from tests.run.slurm.fakes import SUBMISSION, submitted
from tests.run.slurm.jobs import (
    RARELY,
    begun,
    cell_job,
    do_when,
    enter_a_job,
    free,
    planned,
    steps_of,
    warned,
)
from tests.support.running import PAUSE, cell, numbers, train_dots

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In job 77_0 on node n1."""
    return enter_a_job(tmp_path, monkeypatch)


@pytest.fixture
def slowly() -> Iterator[pytest.MonkeyPatch]:
    """A step takes a second, until this is undone: time for a signal to come before the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PAUSE, "1")
        yield patch


def test_warning_stops_the_cell_with_a_checkpoint_and_puts_the_job_back_to_the_same_numbers(
    tmp_path: Path, slowly: pytest.MonkeyPatch
) -> None:
    work = planned(tmp_path / "out", RARELY, steps=12)
    again = warned(work, cell_job(work), lambda: steps_of(work) > 0)
    slowly.undo()
    status = work.directory.status()
    assert status.state is WorkState.PREEMPTED
    assert 0 < status.step < 12
    assert status.message == f"stopped by preemption at step {status.step}; queued again"
    assert not free(work)
    assert isinstance(again, DelayedSubmission)
    assert again.function == cell_job(work)  # all state is on disk
    assert again.function() == f"{work.id}: done"
    train_dots(tmp_path / "whole", RARELY, steps=12)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "whole", "push"))


def test_job_that_may_not_be_put_back_gives_the_cell_free(tmp_path: Path, slowly: pytest.MonkeyPatch) -> None:
    work = planned(tmp_path / "out", RARELY, steps=50)
    assert warned(work, cell_job(work, requeue=False), lambda: steps_of(work) > 0) is None
    status = work.directory.status()
    assert (status.state, status.message) == (
        WorkState.PREEMPTED,
        f"stopped by preemption at step {status.step}",
    )
    assert free(work)


def test_time_limit_with_progress_goes_on_in_a_new_job(tmp_path: Path, slowly: pytest.MonkeyPatch) -> None:
    work = planned(tmp_path / "out", RARELY, steps=50)
    again = warned(work, cell_job(work, seconds=60), lambda: steps_of(work) > 0)
    status = work.directory.status()
    assert status.state is WorkState.TIMEOUT
    assert status.message == f"stopped by the time limit at step {status.step}; queued again"
    assert isinstance(again, DelayedSubmission)
    assert not free(work)


def test_time_limit_without_a_step_is_a_timeout_and_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MARGIN", 59.0)  # of a warning of 60 s
    work = planned(tmp_path / "out", "push.pause=600")
    assert warned(work, cell_job(work, seconds=60), lambda: begun(work)) is None
    status = work.directory.status()
    assert (status.state, status.step) == (WorkState.TIMEOUT, 0)
    assert status.message is not None
    assert status.message.startswith("no step was finished within the job's 1 minutes: not queued again.")
    assert "--with time=…" in status.message
    assert free(work)


def test_batch_longer_than_the_warning_costs_the_steps_since_the_checkpoint_and_nothing_else(
    tmp_path: Path, slowly: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MARGIN", 59.0)
    settings = "train.checkpoint_every=2"
    work = planned(tmp_path / "out", settings, steps=12)
    again = warned(work, cell_job(work), lambda: steps_of(work) > 2, deaf=True)
    slowly.undo()
    status = work.directory.status()
    assert (status.state, status.cause) == (WorkState.PREEMPTED, None)
    assert isinstance(again, DelayedSubmission)
    assert again.function() == f"{work.id}: done"
    train_dots(tmp_path / "whole", settings, steps=12)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "whole", "push"))


@pytest.mark.parametrize("requeue", [True, False])
def test_warning_before_the_cell_began_puts_the_job_back_if_it_may(tmp_path: Path, requeue: bool) -> None:
    work = planned(tmp_path / "out")
    again = cell_job(work, requeue=requeue).checkpoint()
    assert work.directory.status().state is WorkState.PENDING
    assert (again is not None, not free(work)) == (requeue, requeue)
    assert again is None or again.function() == f"{work.id}: done"


@pytest.mark.parametrize("requeue", [True, False])
def test_cell_that_is_done_when_the_warning_comes_stays_done(tmp_path: Path, requeue: bool) -> None:
    work = planned(tmp_path / "out")
    job_ = cell_job(work, requeue=requeue)
    assert job_() == f"{work.id}: done"
    submitted(tmp_path / "out", [work])
    again = job_.checkpoint()
    assert (again is not None, not free(work)) == (requeue, requeue)
    assert again is None or again.function() == f"{work.id}: done"
    assert work.directory.status().state is WorkState.DONE
    assert free(work)


def test_cell_that_fails_after_the_warning_is_failed_and_not_queued_again(tmp_path: Path) -> None:
    work = planned(tmp_path / "out", "broken.at=1", methods="broken")
    job_ = cell_job(work)
    with pytest.raises(CellFailed):
        job_()
    submitted(tmp_path / "out", [work])
    assert job_.checkpoint() is None
    assert work.directory.status().state is WorkState.FAILED
    assert free(work)


def test_scancel_stops_the_cell_and_a_claim_given_free_makes_it_cancelled(
    tmp_path: Path, slowly: pytest.MonkeyPatch
) -> None:
    work = planned(tmp_path / "out", RARELY, steps=200)

    def cancelled() -> None:  # as `bench cancel` does
        claims.release(work.directory, SUBMISSION)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = do_when(lambda: steps_of(work) > 0, cancelled)
    with pytest.raises(CellFailed, match=f"{work.id}: cancelled"):
        cell_job(work)()
    thread.join()
    status = work.directory.status()
    assert (status.state, status.cause) == (WorkState.PREEMPTED, Cause.CANCELLED)
    assert 0 < status.step < 200
    assert status.message == f"cancelled at step {status.step}"


def test_sigterm_without_more_waits_for_slurms_end_and_gives_the_cell_free(
    tmp_path: Path, slowly: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "END_SECONDS", 0.5)
    work = planned(tmp_path / "out", RARELY, steps=200)
    thread = do_when(lambda: steps_of(work) > 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(CellFailed, match="stopped by SIGTERM"):
        cell_job(work)()
    thread.join()
    assert work.directory.status().state is WorkState.PREEMPTED
    assert free(work)
