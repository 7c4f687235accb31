"""What is sent to trackers, and when, with a tracker that only remembers."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.files import append_rows, cut_rows, read_rows, write_rows
from bench.experiment.request import Options, build
from bench.run import process
from bench.run.checkpoints import Checkpoints
from bench.run.experiment import plan
from bench.run.process import HowToRun, Machines
from bench.run.store import CellDir, CellInUse, Status, WorkState
from bench.run.tracking import asked, beside, sending, trackers
from bench.run.tracking.records import StepRecord, records, settled
from tests.support.running import DOTS, PLUGIN, cell, here, train_dots


class Remembering(trackers.Tracker):
    """A server that keeps every run: its lines, in the order in which they came."""

    runs: ClassVar[dict[str, list[StepRecord]]] = {}
    fails_at: ClassVar[int | None] = None
    states: ClassVar[list[WorkState]] = []

    @property
    def at(self) -> str:
        return "here"

    def start(self, run: str | None) -> str:
        self.run = run or f"run {len(self.runs)}"
        self.runs.setdefault(self.run, [])
        return self.run

    def last(self) -> int:
        return max((record.step for record in self.runs[self.run]), default=-1)

    def send(self, record: StepRecord) -> None:
        if record.step == self.fails_at:
            raise ConnectionError("no answer")
        self.runs[self.run].append(record)

    def finish(self, status: Status) -> None:
        self.states.append(status.state)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Remembering]]:
    """In place of MLflow and W&B."""

    class Fresh(Remembering):
        runs: ClassVar[dict[str, list[StepRecord]]] = {}
        states: ClassVar[list[WorkState]] = []

    monkeypatch.setitem(trackers.KINDS, "mlflow", Fresh)
    yield Fresh


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A results directory of six steps, evaluated at every second one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        registry.entries.cache_clear()
        out = tmp_path_factory.mktemp("trained") / "dots"
        train_dots(out, "train.eval_every=2", steps=6)
        yield out
    registry.entries.cache_clear()


@pytest.fixture
def push(trained: Path, tmp_path: Path) -> CellDir:
    """A copy of its trained cell that a test may change."""
    shutil.copytree(trained, tmp_path / "dots")
    return cell(tmp_path / "dots", "push")


def steps(run: list[StepRecord]) -> list[int]:
    return [record.step for record in run]


@pytest.mark.slow
def test_a_step_has_the_numbers_of_its_line_and_its_evaluation(push: CellDir) -> None:
    found = {record.step: record for record in records(push, -1, 6)}
    assert list(found) == [1, 2, 3, 4, 5, 6]
    for row in read_rows(push.metrics):
        numbers = found[row["step"]].numbers
        for key in ("reward_mean", "grad_norm", "seconds", "nfe_forward", "nfe_backward", "memory"):
            assert numbers[f"train/{key}"] == row[key]
        for kind, term in row["terms"].items():
            assert numbers[f"train/terms/{kind}/norm"] == term["norm"]
    rows = [row for row in read_rows(push.evaluations) if row["step"] == 4 and row["reward"] == "brightness"]
    assert found[4].numbers["eval/brightness"] == pytest.approx(sum(r["score"] for r in rows) / len(rows))
    assert found[4].numbers["eval/brightness_se"] > 0
    assert not any(name.startswith("eval/") for name in found[3].numbers)
    files = [sample.file.relative_to(push.path).as_posix() for sample in found[4].samples]
    assert files == ["samples/000004/00.png", "samples/000004/01.png"]
    assert found[4].samples[1].prompt == list(dict.fromkeys(row["prompt"] for row in rows))[1]


@pytest.mark.slow
def test_of_a_video_the_clip_is_shown(push: CellDir) -> None:
    still = push.path / "samples" / "000006" / "00.png"
    Image.new("RGB", (8, 8)).save(still.with_suffix(".gif"))
    (record,) = records(push, 5, 6)
    assert [sample.file.suffix for sample in record.samples] == [".gif", ".png"]


def test_what_a_resume_takes_back_is_not_settled(tmp_path: Path) -> None:
    running = CellDir(tmp_path / "cell")
    running.path.mkdir()
    assert settled(running) == -1
    running.write_status(WorkState.RUNNING)
    Checkpoints(running.path / "checkpoint").write(10, b"parameters")
    assert settled(running) == 9  # the evaluation at step 10 may be missing
    running.write_status(WorkState.PREEMPTED, step=12)
    assert settled(running) == 9
    running.write_status(WorkState.DONE, step=12)
    assert settled(running) == 12


@pytest.mark.slow
def test_a_cell_that_runs_is_sent_as_far_as_it_is_settled_and_then_the_rest(
    push: CellDir, server: type[Remembering]
) -> None:
    push.write_status(WorkState.RUNNING)
    shutil.rmtree(push.path / "checkpoint")
    Checkpoints(push.path / "checkpoint").write(4, b"parameters")
    sender = sending.Sender(push, ["mlflow"])
    sender.send()
    sender.send()
    assert steps(server.runs["run 0"]) == [1, 2, 3]
    push.write_status(WorkState.DONE, step=6)
    assert sender.finish() == {"mlflow": 6}
    assert steps(server.runs["run 0"]) == [1, 2, 3, 4, 5, 6]
    assert server.states == [WorkState.DONE]
    assert sending.send_stored(push, ["mlflow"]) == ({"mlflow": 0}, False)
    assert list(server.runs) == ["run 0"]


@pytest.mark.slow
def test_killed_before_it_took_note_a_sender_sends_nothing_twice(
    push: CellDir, server: type[Remembering], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    original = server.send

    def dying(self: Remembering, record: StepRecord) -> None:
        if record.step == 4:
            raise Killed
        original(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(server, "send", dying)
        with pytest.raises(Killed):
            sending.send_stored(push, ["mlflow"])
    assert json.loads((push.path / sending.NOTE).read_text())["mlflow"]["step"] == -1
    assert sending.send_stored(push, ["mlflow"]) == ({"mlflow": 3}, False)
    assert steps(server.runs["run 0"]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_steps_that_were_made_again_after_damage_go_to_a_new_run(
    push: CellDir, server: type[Remembering], capsys: pytest.CaptureFixture[str]
) -> None:
    sending.send_stored(push, ["mlflow"])
    again = [row | {"seconds": 2 * row["seconds"]} for row in read_rows(push.metrics)]
    cut_rows(push.metrics, 4)
    append_rows(push.metrics, again[4:])
    sending.send_stored(push, ["mlflow"])
    assert [steps(run) for run in server.runs.values()] == [[1, 2, 3, 4, 5, 6]] * 2
    assert "steps up to 6 were sent to mlflow and then taken back" in capsys.readouterr().out


@pytest.mark.slow
def test_a_longer_training_goes_on_in_its_run(push: CellDir, server: type[Remembering]) -> None:
    rows = read_rows(push.metrics)
    write_rows(push.metrics, rows[:4])
    push.write_status(WorkState.DONE, step=4)
    cut_rows(push.evaluations, 4)
    sending.send_stored(push, ["mlflow"])
    append_rows(push.metrics, rows[4:])
    push.write_status(WorkState.DONE, step=6)
    sending.send_stored(push, ["mlflow"])
    assert [steps(run) for run in server.runs.values()] == [[1, 2, 3, 4, 5, 6]]


@pytest.mark.slow
def test_a_tracker_that_fails_is_told_of_and_the_rest_can_be_sent_later(
    push: CellDir,
    server: type[Remembering],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(server):
        runs: ClassVar[dict[str, list[StepRecord]]] = {}
        fails_at = 3

    monkeypatch.setitem(trackers.KINDS, "wandb", Broken)
    ended = threading.Event()
    ended.set()
    assert sending.follow(push, ["wandb", "mlflow"], ended) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(beside.TOLD)]
    results = push.path.parents[1]
    assert told == [
        "caution: wandb cannot be reached or refuses what it is sent (ConnectionError: no answer). The "
        f"training goes on; what is missing can be sent later:  python -m bench track {results} wandb"
    ]
    assert steps(Broken.runs["run 0"]) == [1, 2]
    assert steps(server.runs["run 0"]) == [1, 2, 3, 4, 5, 6]
    Broken.fails_at = None
    assert sending.send_stored(push, ["wandb"]) == ({"wandb": 4}, False)
    assert steps(Broken.runs["run 0"]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_processes_do_not_send_the_same_cell(push: CellDir, server: type[Remembering]) -> None:
    with sending.alone(push, 0.0), pytest.raises(CellInUse, match=f"being sent by process {os.getpid()} on"):
        sending.send_stored(push, ["mlflow"])
    assert server.runs == {}


@pytest.mark.slow
def test_a_cell_that_starts_again_has_a_new_run(
    push: CellDir, server: type[Remembering], plugin: None
) -> None:
    sending.send_stored(push, ["mlflow"])
    push.wipe()
    assert not (push.path / sending.NOTE).exists()
    assert (push.path / sending.LOCK).exists()


class Ended:
    """A process that printed something and ended."""

    stdin = None

    def __init__(self, code: int | None) -> None:
        self.code, self.killed = code, False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.killed = True


def test_what_processes_have_to_tell_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beside, "_told", set())
    every = list[beside.Beside]()
    for name, code in (("a", 1), ("b", 1), ("c", -9), ("d", None)):
        output = tmp_path / name / beside.OUTPUT
        output.parent.mkdir()
        output.write_text("caution: of an earlier process\n")
        every.append(beside.Beside(Ended(code), output))
        with output.open("a") as stream:
            stream.write("wandb: a line of its own\ncaution: wandb cannot be reached\n")
    beside.wait(every, patience=0.0)
    error = " ".join(capsys.readouterr().err.split())
    assert error.count("wandb cannot be reached") == 1
    assert "earlier" not in error and "of its own" not in error
    assert "the process that sends c to trackers ended with exit code -9: see" in error
    assert "the process that sends d to trackers is still busy and is ended: see" in error
    assert [one.process.killed for one in every] == [False, False, False, True]  # type: ignore[attr-defined]


def test_unknown_and_absent_trackers_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    found = here("run", "--track", "tensorbord", "--out", out)
    assert found.returncode == 2
    assert "--track: 'tensorbord' is no tracker. Did you mean 'tensorboard'?" in found.stderr
    monkeypatch.setattr(asked, "installed", lambda package: package not in ("wandb", "alembic"))
    found = here("run", "--track", "wandb,mlflow", "--out", out)
    assert found.returncode == 2
    assert "--track wandb,mlflow: not installed: wandb, alembic. Install:" in found.stderr
    assert "pip install -e '.[track]'" in found.stderr
    monkeypatch.setenv(asked.VARIABLE, "wandb")
    found = here("run", "--out", out)
    assert found.returncode == 2
    assert "BENCH_TRACK wandb: not installed: wandb" in found.stderr
    assert not out.exists()


def test_a_server_needs_no_database_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "installed", lambda package: package == "mlflow")
    monkeypatch.setenv(asked.MLFLOW_URI, "https://mlflow.example")
    assert asked.checked("mlflow,mlflow", "--track") == ("mlflow",)
    monkeypatch.setenv(asked.MLFLOW_URI, "")
    with pytest.raises(BenchError, match="not installed: sqlalchemy, alembic"):
        asked.checked("mlflow", "--track")


def test_directories_of_a_suite_are_told_apart() -> None:
    assert trackers.project(Path("/data/results/demo")) == "demo"
    assert trackers.project(Path("/data/results/mine/tiny-clip/final")) == "mine-tiny-clip-final"


def test_beside_a_cell_one_process_sends_it_and_sees_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Options(methods="full_bp", steps=1, out=tmp_path)
    work = plan(build(config), force=False).todo[-1]
    work.directory.path.mkdir(parents=True)
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], output: Path, variables: dict[str, str]) -> Ended:
        started.append((command, variables))
        return Ended(0)

    monkeypatch.setattr(process, "_cold", start)
    assert process.sender_of(work, HowToRun(), os.environ, warm=False) is None
    monkeypatch.setenv(asked.VARIABLE, "tensorboard,mlflow")
    second = HowToRun(machines=Machines(2, 1))
    assert process.sender_of(work, second, os.environ, warm=False) is None
    sender = process.sender_of(work, HowToRun(2), os.environ, warm=False)
    assert sender is not None and sender.output == work.directory.path / beside.OUTPUT
    ((command, variables),) = started
    assert command[1:] == [
        "-m",
        "bench",
        "track-cell",
        str(work.directory.path),
        "--to",
        "tensorboard,mlflow",
    ]
    assert variables["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.slow
def test_of_a_finished_run_it_is_said_how_it_can_be_sent(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "installed", lambda package: True)
    monkeypatch.syspath_prepend(str(PLUGIN))
    arguments = ("--model", DOTS, "--methods", "push", "--steps", "6", "--set", "train.eval_every=2")
    registry.entries.cache_clear()
    found = here("run", "--out", trained, *arguments, "--track", "wandb")
    registry.entries.cache_clear()
    assert found.returncode == 0
    assert "nothing to run" in " ".join(found.stdout.split())
    assert f"python -m bench track {trained} wandb" in found.stdout


def test_nothing_is_tracked_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(asked.VARIABLE, raising=False)
    assert asked.asked() == ()
