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
from bench.run.store import Cause, State
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


@pytest.mark.slow
def test_warning_stops_the_cell_with_a_checkpoint_and_puts_the_job_back_to_the_same_numbers(
    tmp_path: Path, slowly: pytest.MonkeyPatch
) -> None:
    task = planned(tmp_path / "out", RARELY, steps=12)
    again = warned(task, cell_job(task), lambda: steps_of(task) > 0)
    slowly.undo()
    status = task.directory.status()
    assert status.state is State.PREEMPTED
    assert 0 < status.step < 12
    assert status.message == f"stopped by preemption at step {status.step}; queued again"
    assert not free(task)
    assert isinstance(again, DelayedSubmission)
    assert again.function == cell_job(task)  # all state is on disk
    assert again.function() == f"{task.id}: done"
    train_dots(tmp_path / "whole", RARELY, steps=12)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "whole", "push"))


def test_job_that_may_not_be_put_back_gives_the_cell_free(tmp_path: Path, slowly: pytest.MonkeyPatch) -> None:
    task = planned(tmp_path / "out", RARELY, steps=50)
    assert warned(task, cell_job(task, requeue=False), lambda: steps_of(task) > 0) is None
    status = task.directory.status()
    assert (status.state, status.message) == (
        State.PREEMPTED,
        f"stopped by preemption at step {status.step}",
    )
    assert free(task)


def test_time_limit_with_progress_goes_on_in_a_new_job(tmp_path: Path, slowly: pytest.MonkeyPatch) -> None:
    task = planned(tmp_path / "out", RARELY, steps=50)
    again = warned(task, cell_job(task, seconds=60), lambda: steps_of(task) > 0)
    status = task.directory.status()
    assert status.state is State.TIMEOUT
    assert status.message == f"stopped by the time limit at step {status.step}; queued again"
    assert isinstance(again, DelayedSubmission)
    assert not free(task)


def test_time_limit_without_a_step_is_a_timeout_and_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MARGIN", 59.0)  # of a warning of 60 s
    task = planned(tmp_path / "out", "push.pause=600")
    assert warned(task, cell_job(task, seconds=60), lambda: begun(task)) is None
    status = task.directory.status()
    assert (status.state, status.step) == (State.TIMEOUT, 0)
    assert status.message is not None
    assert status.message.startswith("no step was finished within the job's 1 minutes: not queued again.")
    assert "--with time=…" in status.message
    assert "--with warning=…" in status.message
    assert free(task)


@pytest.mark.slow
def test_batch_longer_than_the_warning_costs_the_steps_since_the_checkpoint_and_nothing_else(
    tmp_path: Path, slowly: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MARGIN", 59.0)
    settings = "train.checkpoint_every=2"
    task = planned(tmp_path / "out", settings, steps=12)
    again = warned(task, cell_job(task), lambda: steps_of(task) > 2, deaf=True)
    slowly.undo()
    status = task.directory.status()
    assert (status.state, status.cause) == (State.PREEMPTED, None)
    assert isinstance(again, DelayedSubmission)
    assert again.function() == f"{task.id}: done"
    train_dots(tmp_path / "whole", settings, steps=12)
    assert numbers(cell(tmp_path / "out", "push")) == numbers(cell(tmp_path / "whole", "push"))


@pytest.mark.parametrize("requeue", [True, False])
def test_warning_before_the_cell_began_puts_the_job_back_if_it_may(tmp_path: Path, requeue: bool) -> None:
    task = planned(tmp_path / "out")
    again = cell_job(task, requeue=requeue).checkpoint()
    assert task.directory.status().state is State.PENDING
    assert (again is not None, not free(task)) == (requeue, requeue)
    assert again is None or again.function() == f"{task.id}: done"


@pytest.mark.parametrize("requeue", [True, False])
def test_cell_that_is_done_when_the_warning_comes_stays_done(tmp_path: Path, requeue: bool) -> None:
    task = planned(tmp_path / "out")
    job_ = cell_job(task, requeue=requeue)
    assert job_() == f"{task.id}: done"
    submitted(tmp_path / "out", [task])
    again = job_.checkpoint()
    assert (again is not None, not free(task)) == (requeue, requeue)
    assert again is None or again.function() == f"{task.id}: done"
    assert task.directory.status().state is State.DONE
    assert free(task)


def test_cell_that_fails_after_the_warning_is_failed_and_not_queued_again(tmp_path: Path) -> None:
    task = planned(tmp_path / "out", "broken.at=1", methods="broken")
    job_ = cell_job(task)
    with pytest.raises(CellFailed):
        job_()
    submitted(tmp_path / "out", [task])
    assert job_.checkpoint() is None
    assert task.directory.status().state is State.FAILED
    assert free(task)


def test_scancel_stops_the_cell_and_a_claim_given_free_makes_it_cancelled(
    tmp_path: Path, slowly: pytest.MonkeyPatch
) -> None:
    task = planned(tmp_path / "out", RARELY, steps=200)

    def cancelled() -> None:  # as `bench cancel` does
        claims.release(task.directory, SUBMISSION)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = do_when(lambda: steps_of(task) > 0, cancelled)
    with pytest.raises(CellFailed, match=f"{task.id}: cancelled"):
        cell_job(task)()
    thread.join()
    status = task.directory.status()
    assert (status.state, status.cause) == (State.PREEMPTED, Cause.CANCELLED)
    assert 0 < status.step < 200
    assert status.message == f"cancelled at step {status.step}"


def test_sigterm_without_more_waits_for_slurms_end_and_gives_the_cell_free(
    tmp_path: Path, slowly: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "END_SECONDS", 0.5)
    task = planned(tmp_path / "out", RARELY, steps=200)
    thread = do_when(lambda: steps_of(task) > 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(CellFailed, match="stopped by SIGTERM"):
        cell_job(task)()
    thread.join()
    assert task.directory.status().state is State.PREEMPTED
    assert free(task)
