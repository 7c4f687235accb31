"""`bench run --only-failed`."""

from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.experiment.request import Options, build
from bench.run import again
from bench.run.store import ResultsDir, WorkState
from tests.support.running import DOTS, here, plan_dots


@pytest.fixture
def states(tmp_path: Path, plugin: None) -> dict[str, str]:
    """A directory with a base model that is done and three seeds of `push`; state → id."""
    base, *works = plan_dots(tmp_path, "push.strength=2", seeds="0-2", steps=2)
    base.directory.write_status(WorkState.DONE)
    ends = (WorkState.FAILED, WorkState.TIMEOUT, WorkState.DONE)
    for work, state in zip(works, ends, strict=True):
        work.directory.write_status(state, 2, message="it broke")
    return {state: work.id for work, state in zip(works, ends, strict=True)}


def ids(out: Path, **options: object) -> list[str]:
    """Of the cells that would run."""
    asked = Options(**({"out": out} | options))  # type: ignore[arg-type]
    planned = again.plan(build(asked), not options, force=False, fetch=True, processes=1)
    return [work.id for work in planned.todo]


def test_of_a_directory_only_failed_cells_run_with_their_own_settings(
    tmp_path: Path, states: dict[str, str]
) -> None:
    assert ids(tmp_path) == [states["failed"]]


def test_of_a_request_only_its_own_failed_cells_run(tmp_path: Path, states: dict[str, str]) -> None:
    asked = {"methods": "push", "model": str(DOTS), "settings": ["push.strength=2"], "steps": 2}
    assert ids(tmp_path, **asked, seeds="0-2") == [states["failed"]]
    assert ids(tmp_path, **asked, seeds="1-2") == []


def test_without_any_it_says_so_and_runs_nothing(tmp_path: Path, states: dict[str, str]) -> None:
    words = ("run", "--only-failed", "--out", tmp_path)
    done = here(*words, "--methods", "push", "--model", DOTS, "--seeds", "7", "--set", "eval.seed=5")
    assert done.returncode == 0
    assert f"no cell of this request failed in {tmp_path}: nothing to run; 1 other did" in done.stdout
    ResultsDir(tmp_path).cell(states["failed"]).write_status(WorkState.DONE, 2)
    done = here(*words)
    assert (done.returncode, done.stdout) == (0, f"no cell in {tmp_path} failed: nothing to run\n")


def test_a_dry_run_shows_what_would_run_and_nothing_else(tmp_path: Path, states: dict[str, str]) -> None:
    words = ("run", "--only-failed", "--dry-run", "--out", tmp_path, "--methods", "push", "--model", DOTS)
    shown = here(*words, "--set", "push.strength=2", "--steps", "2", "--seeds", "0-3").stdout
    assert states["failed"] in shown and "1 cells in" in shown
    assert "nothing to run" in here(*words, "--seeds", "7").stdout


def test_a_directory_without_cells_and_slurm_are_mistakes(tmp_path: Path, states: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="no cells here"):
        ids(tmp_path / "nowhere")
    done = here("run", "--only-failed", "--out", tmp_path, "--slurm", "v100x8")
    assert done.returncode == 2 and f"`python -m bench retry {tmp_path}`" in done.stderr


@pytest.mark.slow
def test_it_runs_them_and_leaves_the_record_of_the_request(tmp_path: Path, states: dict[str, str]) -> None:
    (tmp_path / "experiment.yaml").write_text("cells: []\n")
    done = here("run", "--only-failed", "--in-process", "--no-report", "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    found = {cell.id: cell.status().state for cell in ResultsDir(tmp_path).cells()}
    assert found[states["failed"]] is WorkState.DONE and found[states["timeout"]] is WorkState.TIMEOUT
    assert (tmp_path / "experiment.yaml").read_text() == "cells: []\n"
