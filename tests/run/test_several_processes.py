"""Cells of several processes: their launcher, and what is on record when one of them fails."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.engine.world import World
from bench.run import failures, load, recorded, train
from bench.run.failures import Failure
from bench.run.process import Exit, HowToRun, Process
from bench.run.store import Cause, WorkState
from bench.run.work import CellWork
from tests.support.running import cell, plan_dots, run_dots, train_dots

CPU = torch.device("cpu")
BAD = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
gpu_ids: '0'
main_process_ip: 10.9.9.9
"""


def launched(work: CellWork) -> dict[str, Any]:
    """What accelerate makes of the command line."""
    words = HowToRun(2).command(work)
    words = words[words.index("accelerate.commands.launch") + 1 :]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    return vars(arguments)


@pytest.mark.silent
def test_the_users_own_accelerate_configuration_changes_nothing(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, work) = plan_dots(tmp_path / "out")
    before = launched(work)
    for text in (BAD, "num_processes: [broken"):
        (tmp_path / "default_config.yaml").write_text(text)
        for module in ("launch", "config.config_args"):
            place = f"accelerate.commands.{module}.default_config_file"
            monkeypatch.setattr(place, str(tmp_path / "default_config.yaml"))
        assert launched(work) == before
    assert before["gpu_ids"] == "all" and before["main_process_ip"] is None


def test_processes_wait_an_hour_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's own ten minutes may be too short to load over a cold network disk."""
    asked: list[dict[str, Any]] = []

    def state(**options: Any) -> Any:
        asked.append(options)
        return type("State", (), {"device": CPU, "num_processes": 1})()

    monkeypatch.setattr(load, "PartialState", state)
    load.start(torch.get_num_threads())
    assert asked == [{"cpu": True, "timeout": timedelta(hours=1)}]


class Two(World):
    """One of two processes, which does not really talk to the other. heard: what that one says."""

    def __init__(self, rank: int, heard: int = 0) -> None:
        super().__init__()
        self.rank, self.size, self.is_main, self.heard, self.said = rank, 2, rank == 0, heard, list[int]()

    def largest(self, number: int) -> int:
        self.said.append(number)
        return max(number, self.heard)


@pytest.mark.usefixtures("plugin")
def test_what_a_time_budget_counts_is_the_slowest_processs_in_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one goes on where the other stops, and waits for it. Here this one's clock stands still, and the
    other's goes on by a minute with each batch."""

    def gather_each(self: World, value: Any) -> list[Any]:
        return [value, value + 60.0 if isinstance(value, float) else value][: 1 + isinstance(value, float)]

    monkeypatch.setattr(World, "gather_each", gather_each)
    monkeypatch.setattr(train, "clock", lambda: 0.0)
    train_dots(tmp_path, "train.budget=150s")
    trained = cell(tmp_path, "push")
    assert trained.status().step == 2
    assert trained.status().seconds == pytest.approx(120)


def do_as(monkeypatch: pytest.MonkeyPatch, world: World, work: CellWork, error: Exception | None) -> Exit:
    """Do the work as one of two processes, which ends in the error."""

    def do(*_: object) -> Exit:
        if error is not None:
            raise error
        return Exit.DONE

    monkeypatch.setattr(recorded, "start", lambda *_: (world, CPU))
    return recorded.recorded(work, do)


@pytest.fixture
def work(tmp_path: Path, plugin: None) -> CellWork:
    """A cell that has to run."""
    return plan_dots(tmp_path / "out")[-1]


@pytest.mark.silent
def test_another_process_that_runs_out_of_memory_is_on_record_as_that(
    work: CellWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one sees no more than a broken connection, or is killed while it waits."""
    directory = work.directory
    assert do_as(monkeypatch, Two(1), work, torch.OutOfMemoryError("no room")) is Exit.FAILED
    assert do_as_again(work, monkeypatch) is Exit.FAILED
    status = directory.status()
    assert (status.state, status.cause) == (WorkState.FAILED, Cause.OUT_OF_MEMORY)
    assert str(status.message).startswith("process 2 of 2: OutOfMemoryError: no room\n")
    assert "no room" in (directory.path / "traceback.txt").read_text()


def do_as_again(work: CellWork, monkeypatch: pytest.MonkeyPatch) -> Exit:
    """As the first process, whose start is before the other one's failure and whose error comes after it."""
    monkeypatch.setattr(failures, "forget", lambda directory: None)
    (work.directory.path / "traceback.txt").replace(kept := work.directory.path / "kept.txt")

    class First(Two):
        def largest(self, number: int) -> int:
            kept.replace(work.directory.path / "traceback.txt")
            return super().largest(number)

    return do_as(monkeypatch, First(0), work, RuntimeError("Connection closed by peer"))


def test_a_first_process_that_was_killed_while_it_waited_is_on_record_with_the_others_failure(
    work: CellWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HowToRun, "command", lambda self, work: ["false"])
    process = Process(work, HowToRun(), "test")
    failures.note(work.directory, 1, Failure(message="process 2 of 2: no room", cause=Cause.OUT_OF_MEMORY))
    while (outcome := process.outcome()) is None:
        pass
    assert (outcome.status.state, outcome.status.cause) == (WorkState.FAILED, Cause.OUT_OF_MEMORY)
    assert outcome.status.message == "process 2 of 2: no room"


def test_the_first_failure_counts_and_a_new_run_forgets_it(
    work: CellWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures.note(work.directory, 3, Failure(message="first", cause=None))
    failures.note(work.directory, 1, Failure(message="second", cause=None))
    os.utime(work.directory.path / "failure-1.json", ns=(2**62, 2**62))
    assert failures.first(work.directory) == Failure(message="first", cause=None)
    assert do_as(monkeypatch, Two(0), work, None) is Exit.DONE
    assert failures.first(work.directory) is None


@pytest.mark.silent
def test_a_cell_in_use_is_told_to_all_processes_and_recorded_as_that(
    work: CellWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HowToRun, "command", lambda self, work: ["false"])
    with work.directory.locked():
        work.directory.write_status(WorkState.RUNNING)
        world = Two(0)
        assert do_as(monkeypatch, world, work, None) is Exit.LOCKED
        assert world.said == [recorded.IN_USE]
        assert do_as(monkeypatch, Two(1, heard=recorded.IN_USE), work, BenchError("ran")) is Exit.LOCKED
        process = Process(work, HowToRun(), "test")  # the launcher's exit code is 1, whatever they say
        while (outcome := process.outcome()) is None:
            pass
    assert "is in use by process" in str(outcome.status.message)
    assert work.directory.status().state is WorkState.RUNNING  # as the other one says


def test_a_cell_that_another_run_finished_meanwhile_is_left_by_all(
    work: CellWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.directory.write_status(WorkState.DONE, work.total)
    world = Two(0)
    assert do_as(monkeypatch, world, work, BenchError("ran")) is Exit.DONE
    assert world.said == [recorded.FINISHED]
    assert do_as(monkeypatch, Two(1, heard=recorded.FINISHED), work, BenchError("ran")) is Exit.DONE


@pytest.mark.slow
def test_two_real_processes_work_beside_a_bad_configuration_and_a_failing_one_says_why(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "home" / "accelerate" / "default_config.yaml", BAD)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    how = ("--processes", 2, "--jobs", 1, "--steps", 2)
    done = run_dots(tmp_path / "out", "--methods", "truncated_bp", *how)
    assert done.returncode == 0, done.stdout
    assert (
        json.loads((cell(tmp_path / "out", "truncated_bp").path / "env.json").read_text())["processes"] == 2
    )
    bad = run_dots(tmp_path / "bad", "--methods", "broken", "--set", "broken.at=1", *how)
    assert bad.returncode == 1
    assert "RuntimeError: out of luck" in str(cell(tmp_path / "bad", "broken").status().message)
