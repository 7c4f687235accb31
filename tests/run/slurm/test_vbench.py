"""VBench's videos and scores on a real SLURM."""

import os
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.measure.vbench import mp4
from bench.measure.vbench.dimension_status import read_status
from bench.run.store import ResultsDir, WorkState
from tests.run.slurm.sweeps import jobs, profile, states, until
from tests.support.running import bench

pytestmark = pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")
VIDEOS = ("--dimension", "temporal_flickering", "--subset", 2, "--per-prompt", 3)


def generate(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Six videos of the embedded model."""
    done = bench("vbench", "generate", "--model", "tiny-video", *VIDEOS, "--out", out, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def contents(out: Path) -> dict[str, bytes]:
    """Name → bytes."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


def made(out: Path) -> int:
    """How many videos there are."""
    return len(list(out.glob("*.mp4")))


@pytest.mark.slow
def test_cells_make_the_videos_of_the_plain_command_and_a_killed_one_is_completed_and_all_are_scored(
    cluster: None, tmp_path: Path
) -> None:
    out, by = tmp_path / "jobs" / "videos", ("--slurm", profile(tmp_path), "--cells", 2)
    results = ResultsDir(tmp_path / "jobs" / "videos.jobs")
    assert "2 cells sent in 1 array" in generate(out, *by).stdout
    second = generate(out, *by).stdout
    assert "nothing to send" in second and "2 queued or running" in second
    name = "temporal_flickering-subset2-each3-1of2"
    until(lambda: results.cell(name).status().step > 0)
    pid = results.cell(name).status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: all(
            not one["state"].startswith(("run", "start", "queue")) for one in states(results.path).values()
        )
    )
    found = states(results.path)
    assert {key: one["state"] for key, one in found.items()} == {
        name: "killed",
        name.replace("1of", "2of"): "done",
    }
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert 4 <= len(before) < 6
    assert "1 cell sent in 1 array" in generate(out, *by, "--wait").stdout
    assert [list(one) for one in jobs(results.path)[1:]] == [[name]]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    generate(tmp_path / "plain" / "videos")
    assert contents(out) == contents(tmp_path / "plain" / "videos")
    scored = bench(
        *("vbench", "score", out, "--slurm", profile(tmp_path), "--wait", "--no-static-filter"),
        *("--dimension", "temporal_flickering"),
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr
    assert "temporal flickering" in scored.stdout
    assert read_status(tmp_path / "jobs" / "scores")["temporal_flickering"].scored == 6


@pytest.mark.slow
def test_cancelled_cells_stop_after_a_video_and_retry_completes_them(cluster: None, tmp_path: Path) -> None:
    out, results = tmp_path / "videos", ResultsDir(tmp_path / "videos.jobs")
    generate(out, "--slurm", profile(tmp_path), "--cells", 1)
    (cell,) = results.cells()
    until(lambda: cell.status().step > 0)
    cancelled = bench("cancel", results.path)
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert (cell.status().state, states(results.path)[cell.id]["state"]) == (WorkState.PREEMPTED, "cancelled")
    assert 0 < cell.status().step == made(out) < 6
    again = bench("retry", results.path, "--all", "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    assert made(out) == 6
