"""Cells that are asked to stop in the middle of a batch or of an evaluation, and checkpoints by time."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.base.files import read_rows
from bench.run import session, train, training_state
from bench.run.cell import run_cell
from bench.run.checkpoints import Checkpoints
from bench.run.environment import reset_peak_memory
from bench.run.evaluate import evaluate
from bench.run.process import Exit, HowToRun
from bench.run.recorded import StopRequest
from bench.run.slurm.job import MARGIN, CellJob
from bench.run.store import CellDir, WorkState
from tests.support.running import cell, numbers, plan_dots, train_dots

pytestmark = pytest.mark.slow

# Two optimizer steps of each batch, four micro-batches, and evaluations at every second step.
DDPO = ("ddpo.inner_epochs=2", "ddpo.clip=0.2", "train.micro_batch=2", "train.eval_every=2", "eval.batch=3")
RLR = ("rlr.h=1", "train.micro_batch=2", "train.eval_every=2", "eval.batch=3")
STEPS = 6


class Asked:
    """Counts how often a cell asks whether to stop, and sends this process a signal at one of these times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.at, self.times = at, 0
        original = StopRequest.number

        def number(request: StopRequest) -> int:
            self.times += 1
            if self.times == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(request)

        monkeypatch.setattr(StopRequest, "number", number)


@pytest.mark.parametrize(("method", "settings"), [("ddpo", DDPO), ("rlr", RLR)])
def test_stopped_anywhere_a_cell_leaves_at_once_and_ends_in_the_same_numbers(
    method: str, settings: tuple[str, ...], tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, planned) = plan_dots(tmp_path / "planned", *settings, methods=method, steps=STEPS)

    def fresh(name: str) -> CellDir:
        directory = CellDir(tmp_path / name / planned.id)
        directory.write_config(planned.config)
        return directory

    whole, unfinished = fresh("whole"), 0
    with monkeypatch.context() as patch:
        asked = Asked(patch)
        assert run_cell(whole, None) is Exit.DONE
    wanted = numbers(whole)
    assert asked.times > 40
    for at in range(2, asked.times, 3):
        directory = fresh(f"stopped-{at}")
        with monkeypatch.context() as patch:
            stopped = Asked(patch, at)
            assert run_cell(directory, None) is Exit.STOPPED
        assert stopped.times == at  # it is not asked again: nothing more was computed
        status = directory.status()
        assert status.state is WorkState.PREEMPTED
        assert Checkpoints(directory.path / "checkpoint").newest() == status.step
        assert len(read_rows(directory.metrics)) == status.step
        unfinished += status.step < STEPS
        assert run_cell(directory, None) is Exit.DONE
        assert numbers(directory) == wanted, f"stopped at request {at} of {asked.times}"
    assert unfinished > 10


def test_a_base_model_that_is_stopped_in_its_evaluation_begins_it_again(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dots(tmp_path / "whole", steps=1)
    (base, _) = plan_dots(tmp_path / "out", steps=1)
    directory = CellDir(base.directory.path)
    with monkeypatch.context() as patch:
        Asked(patch, 3)
        assert run_cell(directory, None) is Exit.STOPPED
    assert read_rows(directory.evaluations) == []
    assert run_cell(directory, None) is Exit.DONE
    assert numbers(directory) == numbers(cell(tmp_path / "whole", "base"))


def test_an_evaluation_that_was_due_when_the_cell_was_stopped_is_not_forgotten(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.eval_every=2",)
    train_dots(tmp_path / "whole", *settings, steps=5)
    (_, work) = plan_dots(tmp_path / "out", *settings, steps=5)
    directory = CellDir(work.directory.path)

    def interrupted(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(session, "evaluate", interrupted)
        assert run_cell(directory, None) is Exit.STOPPED
    assert directory.status().step == 2
    assert read_rows(directory.evaluations) == []
    assert run_cell(directory, None) is Exit.DONE
    assert {row["step"] for row in read_rows(directory.evaluations)} == {2, 4, 5}
    assert numbers(directory) == numbers(cell(tmp_path / "whole", "push"))


def test_a_checkpoint_is_written_when_the_last_one_is_old(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.checkpoint_every=1000", "train.checkpoint_seconds=120", "train.eval_every=100")
    (_, work) = plan_dots(tmp_path / "out", *settings, steps=9)

    class Clock:
        """On which a step takes 50 s, and nothing else takes any time."""

        def monotonic(self) -> float:
            return 50.0 * len(read_rows(work.log))

    written: list[int] = []
    original = Checkpoints.write

    def write(self: Checkpoints, step: int, data: bytes) -> None:
        written.append(step)
        original(self, step, data)

    monkeypatch.setattr(train, "time", Clock())
    monkeypatch.setattr(Checkpoints, "write", write)
    assert run_cell(CellDir(work.directory.path), None) is Exit.DONE
    assert written == [3, 6, 9, 9]
    train_dots(tmp_path / "seldom", "train.checkpoint_seconds=1e9", steps=9)
    seldom = cell(tmp_path / "seldom", "push")
    assert seldom.id.rpartition("-")[0] == work.id.rpartition("-")[0]
    assert numbers(CellDir(work.directory.path))[0] == numbers(seldom)[0]


def test_how_often_checkpoints_are_written_is_no_part_of_a_cells_identity(
    tmp_path: Path, plugin: None
) -> None:
    ids = {plan_dots(tmp_path / s, f"train.checkpoint_seconds={s}", steps=3)[-1].id for s in ("1", "120")}
    assert len(ids) == 1


def test_several_processes_have_as_long_to_stop_as_who_waits_for_them() -> None:
    """torch's launcher kills them after 30 s unless it is told otherwise."""
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    assert HowToRun(2).variables[name] == "60"
    assert name not in HowToRun().variables
    job = CellJob("d", "t", "c", processes=2, seconds=3600, warning=300, requeue=True)
    assert job.warning - MARGIN == 290


@pytest.mark.silent
def test_a_checkpoint_is_read_to_main_memory_where_adams_steps_are_counted(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each of them would be read back, twice at each step."""
    (_, work) = plan_dots(tmp_path / "out", "train.checkpoint_every=1", steps=2)
    directory = CellDir(work.directory.path)
    with monkeypatch.context() as patch:
        Asked(patch, 3)
        assert run_cell(directory, None) is Exit.STOPPED
    places: list[object] = []
    original = torch.load

    def load(*arguments: Any, **options: Any) -> Any:
        places.append(options["map_location"])
        return original(*arguments, **options)

    monkeypatch.setattr(torch, "load", load)
    assert run_cell(directory, None) is Exit.DONE
    assert places == ["cpu"]


def test_tensors_of_a_methods_state_go_where_the_parameters_are() -> None:
    state = {"a": [torch.zeros(2), 1.5], 3: (torch.ones(1), "text")}
    moved = training_state._on(torch.device("meta"), state)
    assert moved["a"][0].device.type == moved[3][0].device.type == "meta"
    assert (moved["a"][1], moved[3][1]) == (1.5, "text")


class Gpu:
    """Memory of a GPU: how high it rose since its mark was reset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.high = 900  # loading
        monkeypatch.setattr(train, "reset_peak_memory", lambda device: self.rise(0))
        monkeypatch.setattr(train, "peak_memory", lambda device: self.high)
        monkeypatch.setattr(train.Trainer, "on_gpu", property(lambda self: True))

    def rise(self, to: int) -> None:
        """To so many bytes."""
        self.high = to


def test_memory_on_a_gpu_is_the_most_that_a_training_batch_took_also_over_a_resume(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.eval_every=1", "train.checkpoint_every=1")
    (_, work) = plan_dots(tmp_path / "out", *settings, steps=5)
    gpu, taken = Gpu(monkeypatch), iter((50, 70, 60, 40, 80))
    take_step, held_out = train.Trainer._take_step, session.Session.held_out

    def step(self: train.Trainer, *arguments: Any) -> float:
        gpu.rise(next(taken))
        return take_step(self, *arguments)

    def evaluation(self: session.Session) -> Any:
        gpu.rise(500)
        return held_out(self)

    monkeypatch.setattr(train.Trainer, "_take_step", step)
    monkeypatch.setattr(session.Session, "held_out", evaluation)
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "_tell_graphs", stopping_at(3))
        assert run_cell(CellDir(work.directory.path), None) is Exit.STOPPED
    gpu.rise(900)  # loading again
    assert run_cell(CellDir(work.directory.path), None) is Exit.DONE
    assert [row["memory"] for row in read_rows(work.log)] == [50, 70, 70, 70, 80]


def stopping_at(step: int) -> Any:
    """In place of what is told after a batch: asks to stop after that of the step."""

    def tell(self: train.Trainer, _: object) -> None:
        if self.counters.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return tell


def test_the_mark_of_a_gpus_memory_is_reset_and_that_of_a_process_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reset: list[object] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    for device in (torch.device("cpu"), torch.device("cuda", 1)):
        reset_peak_memory(device)
    assert reset == [torch.device("cuda", 1)]
