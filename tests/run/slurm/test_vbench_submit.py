"""`vbench generate --slurm` and `vbench score --slurm` with a SLURM that takes every job and lets it wait."""

import json
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from bench.base.errors import BenchError
from bench.cli.main import app
from bench.measure.vbench import mp4
from bench.measure.vbench.jobs import VideosJob
from bench.run import claims
from bench.run.slurm import record, sweep
from bench.run.slurm.record import Submission
from bench.run.store import ResultsDir, WorkState
from bench.run.work import work_in
from tests.run.slurm.fakes import Programs

PROFILE = "partition: main\nmax_parallel: 2\ncpus: 3\ndimensions: {imaging_quality: {mem: 9GB}}\n"
pytestmark = pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, a code snapshot of nothing, no waiting."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep, "GLANCE_SECONDS", 0.0)
    monkeypatch.setattr("bench.run.slurm.snapshot.take", lambda _: (tmp_path / "code", {}))
    (tmp_path / "profile.yaml").write_text(PROFILE)
    return tmp_path


def run(tmp_path: Path, command: str, *arguments: str) -> Result:
    """`bench vbench …` in this process."""
    given = ["vbench", command, *arguments, "--slurm", str(tmp_path / "profile.yaml")]
    with mock.patch("bench.cli.vbench.console", Console(width=80)):
        return CliRunner().invoke(app, given, catch_exceptions=False)


def generate(tmp_path: Path, *arguments: str) -> Result:
    """Ten videos of the embedded model, or what the arguments say."""
    usual = ("--model", "tiny-video", "--dimension", "scene", "--subset", "2")
    return run(tmp_path, "generate", *usual, "--out", str(tmp_path / "videos"), *arguments)


def submissions(directory: Path) -> list[Submission]:
    """The oldest first."""
    found = record.submissions(ResultsDir(directory)).values()
    return sorted(found, key=lambda one: (one.created, one.name))


def make(tmp_path: Path, *cells: str) -> None:
    """The videos of these cells."""
    for name in cells:
        job = work_in(ResultsDir(tmp_path / "videos.jobs").cell(name))
        assert isinstance(job, VideosJob)
        for video in job.config.listed():
            (tmp_path / "videos").mkdir(exist_ok=True)
            (tmp_path / "videos" / video.name).write_bytes(b"video")


@pytest.mark.slow
def test_videos_are_shared_out_and_sent_once(tmp_path: Path, programs: Programs) -> None:
    found = generate(tmp_path)
    assert found.exit_code == 0, found.output
    assert "2 cells sent in 1 array (77); 0 done before, 0 queued or running" in found.output
    assert (tmp_path / "videos.json").is_file()
    (sent,) = submissions(tmp_path / "videos.jobs")
    assert sent.jobs == {"scene-subset2-1of2": "77_0", "scene-subset2-2of2": "77_1"}
    assert sent.report is None  # that is for sweeps
    job = work_in(ResultsDir(tmp_path / "videos.jobs").cell("scene-subset2-1of2"))
    assert isinstance(job, VideosJob) and job.threads == 3 and job.config.videos.is_absolute()
    again = generate(tmp_path)
    assert "scene-subset2-1of2: it has SLURM job 77_0" in again.output
    assert len(submissions(tmp_path / "videos.jobs")) == 1


@pytest.mark.slow
def test_cells_of_another_division_share_the_work(tmp_path: Path, programs: Programs) -> None:
    """Each video is locked by who makes it, so that more cells are more hands."""
    generate(tmp_path)
    assert "3 cells sent in 1 array" in generate(tmp_path, "--cells", "3").output
    few = generate(tmp_path, "--cells", "99", "--subset", "3", "--per-prompt", "1")
    assert "3 cells sent in 1 array" in few.output  # no more than there are videos


@pytest.mark.slow
def test_what_is_missing_is_sent_again_and_what_others_made_counts(
    tmp_path: Path, programs: Programs
) -> None:
    generate(tmp_path)
    make(tmp_path, "scene-subset2-1of2")
    programs.queue("77_0|COMPLETED||None|2020-01-01", "77_1|CANCELLED||None|2020-01-01")
    found = generate(tmp_path)
    assert "10 videos of 2 prompts; 5 are there already" in found.output
    assert "1 cell sent in 1 array (78); 1 done before" in found.output
    assert list(submissions(tmp_path / "videos.jobs")[-1].jobs) == ["scene-subset2-2of2"]
    programs.queue("78|COMPLETED||None|2020-01-01", "78_0|COMPLETED||None|2020-01-01")
    make(tmp_path, "scene-subset2-2of2")
    assert "2 cells are done: nothing to send" in generate(tmp_path).output


@pytest.mark.slow
def test_retry_finds_that_others_made_the_videos(tmp_path: Path, programs: Programs) -> None:
    generate(tmp_path)
    results = ResultsDir(tmp_path / "videos.jobs")
    for cell in results.cells():
        cell.write_status(WorkState.FAILED, 0, 1.0, "out of luck")
        claims.release(cell, submissions(results.path)[0].name)
    make(tmp_path, "scene-subset2-1of2", "scene-subset2-2of2")
    asked = sweep.SweepRequest(None, (), None, False, False, False)
    assert sweep.retry(Console(), results, "failed", asked) == 0
    assert [cell.status().state for cell in results.cells()] == [WorkState.DONE, WorkState.DONE]
    assert len(submissions(results.path)) == 1


@pytest.mark.slow
def test_force_begins_anew_but_not_under_running_cells(tmp_path: Path, programs: Programs) -> None:
    generate(tmp_path)
    make(tmp_path, "scene-subset2-1of2", "scene-subset2-2of2")
    with pytest.raises(BenchError, match=r"--force: scene-subset2-1of2, .*python -m bench cancel"):
        generate(tmp_path, "--force")
    programs.queue(*(f"77_{n}|COMPLETED||None|2020-01-01" for n in range(2)))
    found = generate(tmp_path, "--force", "--seed", "1")
    assert "2 cells sent" in found.output
    assert not list((tmp_path / "videos").iterdir())
    assert json.loads((tmp_path / "videos.json").read_text())["seed"] == 1


def test_dry_runs_show_the_arrays_and_write_nothing(tmp_path: Path, programs: Programs) -> None:
    found = generate(tmp_path, "--dry-run", "--cells", "4", "--with", "mem=5GB")
    assert "4 cells in 1 array would be sent" in found.output
    assert "5 GiB" in found.output and "scene-subset2" in found.output
    assert not (tmp_path / "videos.jobs").exists() and not (tmp_path / "videos.json").exists()


def test_dimensions_are_sent_that_lack_nothing_each_with_its_resources(
    tmp_path: Path, programs: Programs
) -> None:
    (tmp_path / "cache" / "pyiqa_model").mkdir(parents=True)
    (tmp_path / "cache" / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth").write_bytes(b"weights")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a cat.mp4").write_bytes(b"no video")
    names = "temporal_flickering,imaging_quality,motion_smoothness"
    arguments = (str(tmp_path / "in"), "--custom", "--dimension", names, "--python", "/other/python")
    dry = run(tmp_path, "score", *arguments, "--dry-run")
    assert dry.exit_code == 1 and "2 cells in 2 arrays would be sent" in dry.output
    assert "no weights: amt-s.pth" in dry.output and not (tmp_path / "scores").exists()
    found = run(tmp_path, "score", *arguments)
    assert found.exit_code == 1  # of one there will be no score
    assert "2 cells sent in 2 arrays (77, 78)" in found.output
    (sent,) = submissions(tmp_path / "scores.jobs")
    assert set(sent.jobs) == {"temporal_flickering", "imaging_quality"}
    assert "--mem=9216M" in (programs.folder / "78.sh").read_text()
    programs.queue("77|PENDING||Priority|N/A", "78|RUNNING|n1|None|N/A")
    here = CliRunner().invoke(app, ["vbench", "score", *arguments[:4]], catch_exceptions=False)
    assert here.exit_code == 1 and here.output.count("left to SLURM") == 2
    assert "0 of 1 dimensions have a score" in here.output


def test_a_profile_with_an_environment_of_its_own_is_taken_at_its_word(
    tmp_path: Path, programs: Programs
) -> None:
    (tmp_path / "profile.yaml").write_text("setup: [export VBENCH_CACHE_DIR=/scratch]\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a cat.mp4").write_bytes(b"no video")
    found = run(tmp_path, "score", str(tmp_path / "in"), "--custom", "--dimension", "motion_smoothness")
    assert found.exit_code == 0 and "1 cell sent" in found.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--model", "tiny-video", "--cells", "3"], "--cells: only with --slurm PROFILE"),
        (["score", "in", "--wait", "--dry-run"], "--wait, --dry-run: only with --slurm PROFILE"),
    ],
)
def test_options_that_mean_nothing_without_slurm(arguments: list[str], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        CliRunner().invoke(app, ["vbench", *arguments], catch_exceptions=False)


def test_mistakes_before_anything_is_sent(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(BenchError, match="leave --shard"):
        generate(tmp_path, "--shard", "1/2")
    (programs.folder / "sbatch").unlink()
    with pytest.raises(BenchError, match="no SLURM on this machine"):
        generate(tmp_path)
    assert not (tmp_path / "videos.jobs").exists()
