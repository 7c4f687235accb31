"""Sweeps through a real SLURM: the same numbers as in one process, and every cell once."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from bench.protocol import tune
from bench.run.store import ResultsDir
from tests.protocol.workloads import written
from tests.run.slurm.sweeps import jobs, profile, states, submit, until
from tests.support.running import DOTS, PATIENCE, bench, command, environment, numbers

GRID = ("--methods", "push,leaning", "--seeds", "0,1", "--reward", "brightness,colourfulness", "--steps", "3")
TIMES = ("second", "memory", "GiB", "MB", "when")


def tables(out: Path) -> dict[str, list[dict[str, str]]]:
    """The report's tables without times and memory."""
    found = {}
    for path in sorted((out / "report").rglob("*.csv")):
        with path.open() as stream:
            rows = list(csv.DictReader(stream))
        kept = [{k: v for k, v in row.items() if not any(word in k for word in TIMES)} for row in rows]
        found[str(path.relative_to(out))] = kept
    return found


@pytest.mark.slow
def test_sweep_through_arrays_gives_the_tables_of_one_process_bit_for_bit(
    cluster: None, tmp_path: Path
) -> None:
    swept, alone = tmp_path / "swept", tmp_path / "alone"
    done = submit(swept, profile(tmp_path, report=True), *GRID, "--max-parallel", 3, "--wait")
    assert done.returncode == 0, done.stdout
    (sent,) = swept.glob("slurm/*/submission.json")
    (array,) = json.loads(sent.read_text())["arrays"]
    assert "--array=0-9%3" in (sent.parent / f"{array}_submission.sh").read_text()
    here = bench("run", "--in-process", "--model", DOTS, "--out", alone, *GRID)
    assert here.returncode == 0, here.stdout + here.stderr
    ids = [cell.id for cell in ResultsDir(alone).cells()]
    assert len(ids) == 10 and ids == [cell.id for cell in ResultsDir(swept).cells()]
    for cell in ids:
        base = cell.startswith("base")
        one, other = (ResultsDir(out).cell(cell) for out in (swept, alone))
        if base:
            assert one.evaluations.read_bytes() == other.evaluations.read_bytes()
        else:
            assert numbers(one) == numbers(other)
    bench("report", swept)  # the dependent job may still be at it
    assert tables(swept) and tables(swept) == tables(alone)
    again = submit(swept, profile(tmp_path), *GRID)
    assert "all 10 cells" in again.stdout and "nothing to send" in again.stdout


@pytest.mark.slow
def test_two_submitters_at_once_run_every_cell_once(cluster: None, tmp_path: Path) -> None:
    by, out = profile(tmp_path), tmp_path / "out"
    arguments = ("--methods", "push", "--seeds", "0,1,2", "--steps", "2")
    send = command("submit", "--profile", by, "--model", DOTS, "--out", out, *arguments, "--wait")
    both = [
        subprocess.Popen(send, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = jobs(out)
    cells = [cell for submission in found for cell in submission]
    assert sorted(cells) == sorted(cell.id for cell in ResultsDir(out).cells())
    assert {one["state"] for one in states(out).values()} == {"done"}
    for cell in ResultsDir(out).cells():
        assert json.loads((cell.path / "job.json").read_text())["restarts"] == 0
    logs = list((out / "slurm").glob("2*/*_log.out"))
    assert len(logs) == len(cells)


@pytest.mark.slow
def test_cell_on_two_machines_gives_the_numbers_of_one_to_rounding(cluster: None, tmp_path: Path) -> None:
    arguments = ("--methods", "truncated_bp", "--steps", "3")
    by = profile(tmp_path, methods={"truncated_bp": {"nodes": 2, "processes": 1}})
    done = submit(tmp_path / "two", by, *arguments, "--wait")
    assert done.returncode == 0, done.stdout
    bench("run", "--in-process", "--model", DOTS, "--out", tmp_path / "one", *arguments)
    (two,), (one,) = (list(out.glob("cells/trunc*")) for out in (tmp_path / "two", tmp_path / "one"))
    assert json.loads((two / "env.json").read_text())["processes"] == 2
    rewards = [
        [json.loads(line)["reward_mean"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
        for directory in (one, two)
    ]
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-5)


@pytest.mark.slow
def test_trials_of_a_tuning_on_slurm_choose_what_those_here_do(cluster: None, tmp_path: Path) -> None:
    words = ["tune", "--methods", "full_bp,random-direction", "--trials", 2, "--workload", written(tmp_path)]
    send = (*words, "--out", tmp_path / "swept", "--slurm", profile(tmp_path))
    sent = bench(*send)
    assert sent.returncode == 0 and "5 cells sent" in sent.stdout, sent.stdout + sent.stderr
    until(lambda: {one["state"] for one in states(tmp_path / "swept").values()} == {"done"})
    again = bench(*send)
    assert again.returncode == 0 and "chosen: " in again.stdout, again.stdout + again.stderr
    assert bench(*words, "--out", tmp_path / "here").returncode == 0
    swept, here = ((tmp_path / place / tune.CHOSEN).read_bytes() for place in ("swept", "here"))
    assert swept == here
