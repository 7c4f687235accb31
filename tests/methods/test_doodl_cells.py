"""DOODL's cells: evaluated once, stopped and continued, summarised."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.engine.batch import Start
from bench.engine.engine import Engine
from bench.run.cell import run_cell
from bench.run.process import Exit
from bench.run.store import CellDir
from methods.doodl import Doodl
from tests.support.running import cell, numbers, plan_dots, status, train_dots

SETTINGS = ("doodl.steps=3", "doodl.lr=0.1", "eval.prompts=3", "eval.images_per_prompt=2", "eval.batch=2")


@pytest.mark.slow
def test_its_cell_is_evaluated_once_on_the_noise_of_all_methods_and_says_what_that_took(
    tmp_path: Path, plugin: None
) -> None:
    assert train_dots(tmp_path, *SETTINGS, methods="doodl,push", steps=2) == [Exit.DONE] * 3
    mine, base = cell(tmp_path, "doodl"), cell(tmp_path, "base")
    rows, before = read_rows(mine.evaluations), read_rows(base.evaluations)
    keys = ("step", "prompt", "image", "reward")
    assert [[r[k] for k in keys] for r in rows] == [[r[k] for k in keys] for r in before]
    scores = [
        (r["score"], b["score"]) for r, b in zip(rows, before, strict=True) if r["reward"] == "brightness"
    ]
    assert all(now != was for now, was in scores)
    took = read_rows(mine.inference)
    assert [(r["prompt"], r["image"]) for r in took] == [
        (r["prompt"], r["image"]) for r in rows if r["reward"] == "brightness"
    ]
    steps = mine.config().model.config.steps
    assert all(r["forward"] == r["backward"] == 3 * steps and r["seconds"] > 0 for r in took)
    assert [r["rewards"][0] for r in took] == pytest.approx([was for _, was in scores], abs=1e-6)
    assert status(mine)["step"] == 0 and status(mine)["state"] == "done"
    assert not mine.metrics.exists() and not (mine.path / "lora").exists()
    stored = load_file(mine.latents / "000001-01.safetensors")["noise"]
    assert stored.shape == (3, 8, 8)
    assert plan_dots(tmp_path, *SETTINGS, methods="doodl,push", steps=2) == []


@pytest.mark.slow
def test_a_cell_that_is_stopped_in_a_batch_of_pictures_makes_that_one_again(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dots(tmp_path / "whole", *SETTINGS, methods="doodl")
    _, work = plan_dots(tmp_path / "out", *SETTINGS, methods="doodl")
    directory, original, calls = CellDir(work.directory.path), Doodl.improve, list[tuple[str, ...]]()

    def counting(self: Doodl, engine: Engine, start: Start) -> Any:
        calls.append(start.prompts)
        return original(self, engine, start)

    monkeypatch.setattr(Doodl, "improve", counting)
    left = "bench.run.recorded.StopRequest.seconds_left"
    monkeypatch.setattr(left, lambda _: -1.0 if len(calls) == 2 else 1.0)
    assert run_cell(directory, timeout=100) is Exit.STOPPED
    assert status(directory)["state"] == "timeout"
    assert len(list(directory.latents.iterdir())) == 2
    monkeypatch.setattr(left, lambda _: 1.0)
    assert run_cell(directory, timeout=100) is Exit.DONE
    assert len(calls) == 4
    assert numbers(directory) == numbers(cell(tmp_path / "whole", "doodl"))


def test_damaged_noise_is_named(tmp_path: Path, plugin: None) -> None:
    _, work = plan_dots(tmp_path, *SETTINGS, methods="doodl")
    directory = CellDir(work.directory.path)
    directory.latents.mkdir()
    for k in range(2):
        (directory.latents / f"000000-{k:02d}.safetensors").write_bytes(b"nonsense")
    assert run_cell(directory, None) is Exit.FAILED
    assert "000000-00.safetensors: damaged" in status(directory)["message"]


@pytest.mark.slow
def test_bench_evaluate_draws_a_cells_pictures_from_the_noise_that_it_kept(
    tmp_path: Path, plugin: None
) -> None:
    from rich.console import Console

    from bench.run.score import ScoringRequest, score_cells

    train_dots(tmp_path, *SETTINGS, methods="doodl")
    directory = cell(tmp_path, "doodl")
    score_cells(Console(quiet=True), [directory.path], ScoringRequest("brightness", batch=4))
    again = read_rows(directory.path / "evaluations" / "brightness.jsonl")
    scores = [r["score"] for r in read_rows(directory.evaluations) if r["reward"] == "brightness"]
    assert [r["score"] for r in again if r["reward"] == "brightness"] == pytest.approx(scores, abs=1e-6)
    (directory.latents / "000000-00.safetensors").unlink()
    with pytest.raises(BenchError, match=r"000000-00.safetensors: not there"):
        score_cells(Console(quiet=True), [directory.path], ScoringRequest("brightness"))


def test_it_has_no_gradient_to_profile_and_other_methods_need_steps(tmp_path: Path, plugin: None) -> None:
    from tests.measure.cost.cells import planned

    with pytest.raises(BenchError, match="method 'doodl' trains nothing"):
        planned("tiny", "doodl,zo")
    assert "doodl" not in [cell.config.label for cell in planned("tiny", "all", "model.steps=12").cells]
    with pytest.raises(BenchError, match=r"train\.steps is 0, but method 'push' trains"):
        plan_dots(tmp_path, "train.steps=0")


@pytest.mark.slow
def test_the_summary_has_its_cost_by_picture(tmp_path: Path, plugin: None) -> None:
    from bench.report import tables, words
    from bench.report.groups import contests
    from bench.report.load import load
    from bench.report.summary import lines as lines_of

    train_dots(tmp_path, *SETTINGS, methods="doodl,push", steps=2)
    lines = lines_of(contests(load(tmp_path))[0])
    frame = tables.frame(lines).set_index("method")
    took = read_rows(cell(tmp_path, "doodl").inference)
    assert frame.loc["doodl", "inference_forward"] == took[0]["forward"]
    assert frame.loc["doodl", "steps"] == 0 and frame.loc["push", "steps"] == 2
    assert bool(pd.isna(frame.loc["push", "inference_seconds"]))
    headers = [c.header for c in tables.column_groups(lines)[1][-1].columns]
    assert headers[-3:] == ["forward/picture", "backward/picture", "s/picture"]
    assert "every further picture costs it again" in words.legend(lines)
