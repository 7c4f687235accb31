"""The paper's experiments from beginning to end with the embedded model's settings, as short as can be."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from bench.experiment.request import Options, build
from bench.report import figures
from bench.report.groups import contests
from bench.report.load import BASE, load
from bench.report.report import write_report
from bench.run import launch
from bench.run.cell import run_cell
from bench.run.experiment import plan
from bench.run.process import Exit
from bench.run.store import CellDir, ResultsDir
from tests.experiment.test_combinations import PAPER
from tests.support.pipelines import pipeline_dir

SHORT = ("train.batch_size=2", "eval.prompts=2", "eval.images_per_prompt=1", "eval.samples=1")
ALIKE = ("train.optimizer=adam", "train.lr=5e-4", "train.weight_decay=0", "train.eval_every=50")
STEPS = {"table4": 12, "figure3": 11}  # that its blocks and truncations need; 5 in the other experiments


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all experiments run: with settings alike, they share many of their cells."""
    return tmp_path_factory.mktemp("results")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_runs_with_the_embedded_models_settings_from_beginning_to_end(
    name: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried_here: None
) -> None:
    monkeypatch.setattr(figures, "render", lambda figure: {"svg": b"<svg/>", "png": b""})  # made, not drawn
    settings = (f"model.path={pipeline_dir()}", f"sampler.steps={STEPS.get(name, 5)}", *SHORT, *ALIKE)
    options = Options(config=name, model="tiny", steps=1, settings=settings, out=results)
    planned = plan(build(options), force=False)
    ready, busy = launch.prepare(planned.todo, force=False)
    assert len(ready) == len(planned.todo) and not busy
    assert [run_cell(CellDir(work.directory.path), None) for work in ready] == [Exit.DONE] * len(ready)
    for cell in planned.cells:
        shutil.copytree(planned.results.cell(cell.id).path, ResultsDir(tmp_path).cell(cell.id).path)
    write_report(tmp_path, Console(file=(tmp_path / "console.txt").open("w")))
    found = contests(load(tmp_path))
    groups = [group for contest in found for group in (*contest.groups, contest.base) if group is not None]
    trained = [cell for cell in planned.cells if cell.config.training is not None]
    assert sum(group.label != BASE for group in groups) == len(trained)  # one seed each: none is pooled
    assert len({contest.title for contest in found}) == len(found)
    assert all(contest.base is not None for contest in found)
