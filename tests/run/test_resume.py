import json
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bench.run.process
import bench.run.recorded
from bench.base.files import read_rows
from bench.run import launch, warm
from bench.run.cell import run_cell
from bench.run.process import Exit, HowToRun
from bench.run.progress import Lines
from bench.run.spent import Counters
from bench.run.store import CellDir, WorkState
from bench.run.warm import WarmProcess
from tests.support.kill_everywhere import kill_everywhere
from tests.support.running import (
    DOTS,
    PATIENCE,
    PAUSE,
    cell,
    environment,
    numbers,
    plan_dots,
    run_dots,
    status,
    train_dots,
)
from tests.support.watched import watched

pytestmark = pytest.mark.slow

SETTINGS = ("train.eval_every=2", "push.inner=2", "eval.samples=1")


IDLE = ("doodl.steps=2", "eval.prompts=3", "eval.images_per_prompt=2", "eval.batch=4", "eval.samples=1")


@pytest.mark.parametrize(
    ("method", "settings", "files"),
    [
        ("push", SETTINGS, ("status.json", "metrics.jsonl", "eval.jsonl", ".npz", ".png", "checkpoint/")),
        ("doodl", IDLE, ("status.json", "inference.jsonl", "eval.jsonl", ".png", "latents/")),
    ],
)
def test_killed_at_any_write_the_same_command_ends_in_the_same_numbers(
    tmp_path: Path, plugin: None, method: str, settings: tuple[str, ...], files: tuple[str, ...]
) -> None:
    _, work = plan_dots(tmp_path / "out", *settings, methods=method, steps=4)
    planned = tmp_path / "cells" / "planned"
    planned.mkdir(parents=True)
    shutil.copy(work.directory.path / "config.yaml", planned)
    with ProcessPoolExecutor(1, mp_context=warm.context()) as process:
        kinds = process.submit(kill_everywhere, planned).result(PATIENCE)
    assert all(any(file in kind for kind in kinds) for file in files)


def test_run_killed_at_random_moments_ends_in_the_same_numbers(tmp_path: Path, plugin: None) -> None:
    every = "train.eval_every=15"
    train_dots(tmp_path / "whole", every, steps=40, seeds="0,1")
    arguments = ["--set", every, "--steps", "40", "--seeds", "0,1", "--methods", "push", "--model", str(DOTS)]
    run = ["run", "--no-report", "--out", str(tmp_path / "killed"), *arguments]
    rng = random.Random(3)

    def steps() -> int:
        return sum(len(read_rows(log)) for log in tmp_path.glob("killed/cells/push*/metrics.jsonl"))

    for _ in range(4):
        before, further = steps(), rng.randint(3, 12)
        process = WarmProcess(run, tmp_path / "output", environment() | {PAUSE: "0.1"})
        while steps() < before + further:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        while process.poll() is None:
            time.sleep(0.01)
    assert steps() < 2 * 40
    final = run_dots(tmp_path / "killed", *arguments)
    assert final.returncode == 0, final.stdout + final.stderr
    for seed in (0, 1):
        prefix = f"push-dots-brightness-s{seed}"
        assert numbers(cell(tmp_path / "killed", prefix)) == numbers(cell(tmp_path / "whole", prefix))


def test_a_budget_of_seconds_goes_on_where_a_kill_left_it(tmp_path: Path, plugin: None) -> None:
    """What was spent before the last checkpoint counts; what came after it is spent again."""
    arguments = ["--model", str(DOTS), "--methods", "full_bp", "--budget", "1s"]
    arguments += ["--set", "train.samples_per_prompt=128", "--set", "train.micro_batch=512"]
    run = ["run", "--no-report", "--out", str(tmp_path), *arguments]
    process = WarmProcess(run, tmp_path / "output", environment() | {PAUSE: "0.05"})
    while not (logs := list(tmp_path.glob("cells/full_bp*/metrics.jsonl"))) or len(read_rows(logs[0])) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    while process.poll() is None:
        time.sleep(0.01)
    before = read_rows(logs[0])
    assert run_dots(tmp_path, *arguments[2:]).returncode == 0
    rows = read_rows(logs[0])
    common = [old["seconds"] == new["seconds"] for old, new in zip(before, rows, strict=False)]
    assert any(common) and common == sorted(common, reverse=True)  # those up to the checkpoint are kept
    last = Counters.of(rows[-1])
    assert last.seconds * (1 + 1 / last.batch) > 1
    assert status(cell(tmp_path, "full_bp"))["state"] == WorkState.DONE


def test_interrupt_checkpoints_says_how_to_continue_and_continuing_gives_the_same_numbers(
    tmp_path: Path, plugin: None
) -> None:
    out = tmp_path / "out"
    arguments = ("--model", str(DOTS), "--methods", "push", "--steps", "20")
    run = ["run", "--no-report", "--out", str(out), *arguments]
    process = WarmProcess(run, tmp_path / "output", environment() | {PAUSE: "1"})
    assert process.pid is not None
    while not list(out.glob("cells/push*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    while process.poll() is None:
        time.sleep(0.05)
    output = (tmp_path / "output").read_text()
    assert process.poll() == 130
    assert "stopping: each process leaves its batch and writes a checkpoint" in output
    assert f"Continue where it stopped with:\n  python -m bench run --no-report --out {out}" in output
    interrupted = status(cell(out, "push"))
    assert interrupted["state"] == "preempted"
    assert 0 < interrupted["step"] < 20
    assert len(read_rows(cell(out, "push").metrics)) == interrupted["step"]
    assert train_dots(out, steps=20)[-1] is Exit.DONE
    train_dots(tmp_path / "whole", steps=20)
    assert numbers(cell(out, "push")) == numbers(cell(tmp_path / "whole", "push"))


@pytest.mark.parametrize("method", ["push", "nft", "awm"])  # two that keep older parameters
def test_timeout_ends_a_cell_with_a_checkpoint_and_the_same_command_goes_on(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    settings = () if method == "push" else (f"{method}.ramp=0.2",)
    *_, work = plan_dots(tmp_path / "out", *settings, methods=method, steps=12)

    class Clock:
        """On which a step takes a second, and nothing else takes any time."""

        def monotonic(self) -> float:
            return float(len(read_rows(work.log)))

    monkeypatch.setattr(bench.run.recorded, "time", Clock())
    assert run_cell(CellDir(work.directory.path), timeout=4.5) is Exit.STOPPED
    timed_out = status(CellDir(work.directory.path))
    assert timed_out["state"] == "timeout"
    assert timed_out["step"] == 5
    assert train_dots(tmp_path / "out", *settings, methods=method, steps=12)[-1] is Exit.DONE
    train_dots(tmp_path / "whole", *settings, methods=method, steps=12)
    assert numbers(CellDir(work.directory.path)) == numbers(cell(tmp_path / "whole", method))


def test_cell_that_hangs_beyond_its_time_is_killed(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(subprocess.Popen[bytes]):
        """A process that hangs from its first moment."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(bench.run.process, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(subprocess, "Popen", Frozen)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    _, work = plan_dots(tmp_path)
    (outcome,), interrupted = launch.run(
        [work], 1, lambda *_: HowToRun(timeout=1.0), Lines(Console(), 1), "test"
    )
    assert not interrupted
    assert outcome.status.state == "timeout"
    assert outcome.status.message is not None
    assert outcome.status.message.startswith("the process was killed by SIGKILL.")


def test_more_steps_extend_a_finished_cell_to_the_numbers_of_a_longer_run(
    tmp_path: Path, plugin: None
) -> None:
    train_dots(tmp_path / "out", steps=3)
    assert train_dots(tmp_path / "out", steps=8) == [Exit.DONE]
    train_dots(tmp_path / "whole", steps=8)
    ours, whole = cell(tmp_path / "out", "push"), cell(tmp_path / "whole", "push")
    assert numbers(ours)[0] == numbers(whole)[0]
    assert [row for row in read_rows(ours.evaluations) if row["step"] == 8] == read_rows(whole.evaluations)
    assert plan_dots(tmp_path / "out", steps=5) == []


def test_damaged_checkpoint_falls_back_and_two_damaged_ones_fail_clearly(
    tmp_path: Path, plugin: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train_dots(tmp_path / "whole", steps=9)
    train_dots(tmp_path / "out", steps=6)
    directory = cell(tmp_path / "out", "push")
    newest = max((directory.path / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    assert train_dots(tmp_path / "out", steps=9) == [Exit.DONE]
    output = capsys.readouterr().out
    assert f"{newest} is damaged: falling back to the checkpoint before it" in output
    assert "continuing at step 4" in output
    assert numbers(directory)[0] == numbers(cell(tmp_path / "whole", "push"))[0]
    for file in (directory.path / "checkpoint").iterdir():
        file.write_bytes(b"damaged")
    assert train_dots(tmp_path / "out", steps=12) == [Exit.FAILED]
    assert "all checkpoints are damaged" in status(directory)["message"]


def test_cells_do_not_depend_on_how_often_they_are_checkpointed(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path / "rarely", "train.checkpoint_every=100")
    train_dots(tmp_path / "often", "train.checkpoint_every=1")
    rarely, often = cell(tmp_path / "rarely", "push"), cell(tmp_path / "often", "push")
    assert rarely.id == often.id
    assert numbers(rarely) == numbers(often)


def test_two_processes_give_the_numbers_of_one_to_rounding(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path / "one", methods="truncated_bp")
    done = run_dots(tmp_path / "two", "--methods", "truncated_bp", "--processes", 2, "--jobs", 1)
    assert done.returncode == 0, done.stdout
    assert (
        json.loads((cell(tmp_path / "two", "truncated_bp").path / "env.json").read_text())["processes"] == 2
    )
    one, two = (read_rows(cell(tmp_path / name, "truncated_bp").metrics) for name in ("one", "two"))
    assert [row["reward_mean"] for row in two] == pytest.approx([row["reward_mean"] for row in one], rel=1e-5)
    assert [row["grad_norm"] for row in two] == pytest.approx([row["grad_norm"] for row in one], rel=1e-4)
    assert [row["samples"] for row in two] == [row["samples"] for row in one]


def test_second_identical_run_starts_and_writes_nothing_and_says_so(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    options = ("--no-report", "--model", DOTS, "--out", tmp_path, "--methods", "push")
    second, record = watched(tmp_path.with_name("record.json"), "run", *options)
    assert record.started == record.connected == record.waits == []
    assert second.returncode == 0
    assert "all 2 cells" in second.stdout
    assert "nothing to run" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_force_runs_a_finished_cell_again_from_its_start(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path)
    before = numbers(cell(tmp_path, "push"))
    first = status(cell(tmp_path, "push"))
    assert run_dots(tmp_path, "--force").returncode == 0
    assert status(cell(tmp_path, "push"))["pid"] != first["pid"]
    assert numbers(cell(tmp_path, "push")) == before
