"""A suite on SLURM, and one that is killed: the same command goes on."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.protocol import record
from bench.protocol.suite import runs
from bench.run.store import ResultsDir
from bench.run.warm import WarmProcess
from tests.protocol.cells import end_trial
from tests.protocol.test_suite import NAME, UNREPEATABLE, planned, read, table
from tests.protocol.workloads import written
from tests.run.slurm.fakes import SBATCH, Programs
from tests.support.running import PATIENCE, PAUSE, bench, environment, here


def test_slurm_gets_trials_first_and_runs_when_their_study_has_chosen(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SLURM that takes every job and lets it wait; the results are made up."""
    suite = planned(tmp_path, "full_bp")
    (part,) = suite.parts
    tuning, finals = part.tuning.results, part.results
    words = ["suite", "--methods", "full_bp", "--workloads", str(tmp_path / f"{NAME}.yaml"), "--trials", "2"]
    words += ["--seeds", "3", "--out", str(suite.out), "--slurm"]
    profile = tmp_path / "profile.yaml"
    profile.write_text("report: false")
    with monkeypatch.context() as patch:
        programs = Programs(tmp_path, patch)
        programs.script("sbatch", SBATCH.format(folder=programs.folder))
        programs.say("srun")
        programs.say("scontrol", "MaxArraySize = 1001\n")
        programs.queue(*(f"{job}_{n}|PENDING||Priority|N/A" for job in range(77, 99) for n in range(9)))
        done = here(*words, profile)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "When the jobs have ended, the same command goes on" in done.stdout
        assert {cell.id for cell in tuning.cells()} >= {trial.cell for trial in part.tuning.trials}
        assert [cell.id for cell in finals.cells()] == [part.base]
        for trial in part.tuning.trials:
            if trial.method == "full_bp":
                end_trial(part, trial, None if trial.number else 0.5)
        sent = len(list(tuning.path.glob("slurm/*/submission.json")))
        done = here(*words, profile)
        assert done.returncode == 0, done.stdout + done.stderr
    ready = {run.cell for run in runs(suite, part) if run.method == "full_bp"}
    assert None not in ready and {cell.id for cell in finals.cells()} == {*ready, part.base}
    assert len(list(tuning.path.glob("slurm/*/submission.json"))) == sent  # neither misses nor waiting ones
    lines = table(suite, record.RUNS)
    assert set(lines["state"]) == {"left"}


@pytest.mark.slow
def test_a_suite_that_was_killed_in_tuning_and_in_final_runs_ends_in_the_same_record(tmp_path: Path) -> None:
    path = written(tmp_path, evaluations=2)
    words = ["suite", "--methods", "push", "--workloads", str(path), "--trials", "1", "--seeds", "2"]
    done = bench(*words, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stdout + done.stderr

    out, left = tmp_path / "killed", []
    for folder in ("tuning", "final"):
        _kill_when_something_trains(words, out, ResultsDir(out / NAME / folder), tmp_path / "output")
        done = bench(*words, "--out", out, "--record-only")
        assert done.returncode == 0, done.stderr
        left.append(_left(out))
    assert left[0][0] > 0 and left[0][1] == 5  # trials; base and four runs
    assert left[1][0] == 0 and 0 < left[1][1] <= 5
    done = bench(*words, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left(out) == (0, 0)

    one, other = _tables(tmp_path / "whole"), _tables(out)
    assert one == other and len(one) == 6
    runs_ = read(out, record.RUNS)
    trained = runs_[runs_["method"] != "base"]
    assert ((trained["forwards"] > 100) & (trained["forwards"] <= 200)).all()
    curves, scores = (read(out, name) for name in (record.CURVES, record.SCORES))
    last = curves.groupby(["method", "seed", "reward"])["score"].last()
    means = scores.groupby("reward").mean(numeric_only=True)
    ended = [means.loc[reward, f"{method} {seed:.0f}"] for method, seed, reward in last.index]
    assert last.to_numpy() == pytest.approx(np.array(ended), abs=1e-5)
    bytes_ = {path: path.read_bytes() for path in (out / "record").rglob("*.*")}
    assert bench(*words, "--out", out, "--record-only").returncode == 0
    assert bytes_ == {path: path.read_bytes() for path in (out / "record").rglob("*.*")}


def _kill_when_something_trains(words: list[str], out: Path, results: ResultsDir, output: Path) -> None:
    """Start the suite, and kill it and all that it started as soon as a cell of these is at it."""
    process = WarmProcess([*words, "--out", str(out)], output, environment() | {PAUSE: "0.3"})
    deadline = time.monotonic() + PATIENCE
    while not any(cell.metrics.exists() for cell in results.cells()):
        assert process.poll() is None and time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
    process.kill()
    while process.poll() is None:
        time.sleep(0.01)


def _left(out: Path) -> tuple[int, int]:
    """How many trials and final runs the record says are left."""
    trials, finals = (read(out, name) for name in (record.TRIALS, record.RUNS))
    return int((trials["state"] != "done").sum()), int((finals["state"] == "left").sum())


def _tables(out: Path) -> dict[str, str]:
    """The record's files without what no two runs share."""
    found = {path.name: path.read_text() for path in (out / "record").rglob("*.yaml")}
    for path in (out / "record").rglob("*.csv"):
        frame = pd.read_csv(path, dtype=str)
        found[path.name] = frame.drop(columns=UNREPEATABLE, errors="ignore").to_csv(index=False)
    return found
