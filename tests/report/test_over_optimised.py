"""How far pictures lie from the base model's, and from which step on they are collapsed."""

import math
import shutil
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.base.files import read_rows, write_rows
from bench.report import collapse, distances, tables, words
from bench.report.groups import contests
from bench.report.load import CellResults, load
from bench.report.over_optimised import collapse_step
from bench.report.summary import Line
from bench.report.summary import lines as lines_of
from bench.run import features
from bench.run.features import Features
from tests.report import fake

PICTURES = 2 * len(fake.PROMPTS)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return fake.write(tmp_path / "small", ["rlr", "vader"], steps=20, pictures=False)


def cell(root: Path, method: str) -> CellResults:
    return next(c for c in load(root).cells if c.id.startswith(method))


def pair(root: Path, method: str = "vader") -> tuple[CellResults, CellResults]:
    return cell(root, method), cell(root, "base")


def lines(root: Path) -> dict[str, Line]:
    return {line.group.label: line for line in lines_of(contests(load(root))[0])}


def headers(root: Path) -> list[str]:
    _, parts = tables.column_groups(list(lines(root).values()))
    return [column.header for part in parts for column in part.columns]


def csv(root: Path) -> dict[str, dict[Hashable, Any]]:
    """The lines of summary.csv by method."""
    return {row["method"]: row for row in tables.frame(list(lines(root).values())).to_dict("records")}


@pytest.mark.parametrize(
    ("diversity", "step"),
    [
        ({10: 0.4, 20: 0.19, 30: 0.1, 40: 0.0}, 20),
        ({40: 0.0, 30: 0.1, 20: 0.19, 10: 0.4}, 20),
        ({10: 0.1, 20: 0.3, 30: 0.19}, 30),
        ({10: 0.1, 20: 0.1, 30: 0.2}, None),
        ({10: 0.4, 20: 0.1, 30: 0.3}, None),
        ({10: 0.4, 20: 0.3}, None),
        ({6: 0.1}, 6),
        ({}, None),
    ],
)
def test_a_run_is_collapsed_from_where_its_diversity_stays_below_half_of_the_base_model_s(
    diversity: dict[int, float], step: int | None
) -> None:
    assert collapse_step(diversity, base=0.4) == step


def test_every_picture_is_paired_with_the_base_model_s_of_its_prompt_and_noise(small: Path) -> None:
    trained, base = pair(small)
    rows = distances(trained, base, 20)
    expected = 1 - 1 / np.hypot(1, 20 * fake.DRIFT)
    assert rows["score"].tolist() == pytest.approx([expected] * PICTURES, rel=1e-5)
    assert set(rows["reward"]) == {"distance"} and set(rows["step"]) == {20}
    keys = [(row["prompt"], row["image"]) for row in rows.to_dict("records")]
    assert keys == [(prompt, image) for prompt in fake.PROMPTS for image in (0, 1)]
    assert max(distances(trained, base, 10)["score"].tolist()) < min(rows["score"].tolist())


def test_pictures_are_paired_by_prompt_and_not_by_their_place(small: Path) -> None:
    base = cell(small, "base")
    rows = read_rows(base.path / "eval.jsonl")
    turned = fake.PROMPTS[::-1]
    pictures = [row for row in rows if row["prompt"] is not None]
    write_rows(base.path / "eval.jsonl", sorted(pictures, key=lambda row: turned.index(row["prompt"])))
    name, values = features.read(base.features[0])
    values = values.reshape(len(turned), 2, -1)[::-1].reshape(PICTURES, -1)
    features.write(base.path / "features", 0, Features(name, values[:-2]))
    rows = [row for row in read_rows(base.path / "eval.jsonl") if row["prompt"] != turned[-1]]
    write_rows(base.path / "eval.jsonl", rows)
    found = distances(*pair(small), 20)
    assert set(found["prompt"]) == set(fake.PROMPTS[1:])
    assert found["score"].tolist() == pytest.approx([1 - 1 / np.hypot(1, 20 * fake.DRIFT)] * 18, rel=1e-5)


def test_features_that_are_gone_or_of_another_kind_give_no_distance(small: Path) -> None:
    trained, base = pair(small)
    assert distances(trained, replace(base, features={}), 20).empty
    assert distances(replace(trained, features={}), base, 20).empty
    assert distances(trained, base, 15).empty
    name, values = features.read(base.features[0])
    for other in (Features("pixels", values), Features(name, values[:, 1:])):
        features.write(base.path / "features", 0, other)
        assert distances(*pair(small), 20).empty


def test_the_summary_has_the_mean_distance_with_its_standard_error(small: Path) -> None:
    trained = cell(small, "vader")
    values = features.read(trained.features[20])
    far = values.values.copy()
    far[:2, -1] *= 5  # the pictures of the first prompt
    features.write(trained.path / "features", 20, Features(values.name, far))
    scores = distances(*pair(small), 20)["score"].to_numpy(dtype=float)
    by_prompt = scores.reshape(len(fake.PROMPTS), 2).mean(axis=1)
    line = lines(small)["vader"]
    assert line.distance.mean == pytest.approx(by_prompt.mean())
    assert line.distance.se == pytest.approx(by_prompt.std(ddof=1) / np.sqrt(len(by_prompt)))
    row = csv(small)["vader"]
    assert (row["distance"], row["distance_se"]) == (line.distance.mean, line.distance.se)
    assert math.isnan(csv(small)["base"]["distance"])
    assert "Distance:" in words.legend(list(lines(small).values()))


def test_results_of_before_features_were_kept_have_no_distance_and_no_note(small: Path) -> None:
    for folder in small.glob("cells/*/features"):
        shutil.rmtree(folder)
    assert "distance" not in headers(small) and load(small).notes == ()
    assert "Distance:" not in words.legend(list(lines(small).values()))


@pytest.mark.silent
def test_damaged_features_are_noted_and_cost_no_other_cell(small: Path) -> None:
    damaged = cell(small, "vader").features[20]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    found = lines(small)
    assert not found["vader"].distance.units and found["rlr"].distance.units
    assert found["vader"].score.units
    (note,) = load(small).notes
    assert note.startswith(
        f"{damaged.parent.parent.name}/features/000020.npz was left out: damaged: no whole"
    )


@pytest.mark.silent
def test_features_that_are_gone_or_too_few_are_noted(small: Path) -> None:
    gone = cell(small, "rlr").features[20]
    gone.unlink()
    trained = cell(small, "vader")
    name, values = features.read(trained.features[10])
    features.write(trained.path / "features", 10, Features(name, values[1:]))
    lacks, few = load(small).notes
    assert f"{gone.parent.parent.name}/features lacks the file of the last evaluation" in lacks
    assert few.endswith("features/000010.npz was left out: features of 19 pictures, not of 20.")


def collapsing(root: Path, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...]) -> Path:
    """Vader's diversity falls from 0.41 to 0.05, below half of it from step 20 on."""
    monkeypatch.setitem(fake.FIGHTS, "vader", replace(fake.FIGHTS["vader"], diversity=-0.36))
    return fake.write(root, ["rlr", "vader"], seeds, steps=40, pictures=False)


def test_the_summary_says_how_many_runs_collapsed_and_from_which_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = collapsing(tmp_path / "r", monkeypatch, (0, 1, 2))
    recovered = next(root.glob("cells/vader-tiny-clip-s1-*")) / "eval.jsonl"
    write_rows(
        recovered,
        [
            {**row, "score": 0.3} if row["reward"] == "diversity" and row["step"] == 40 else row
            for row in read_rows(recovered)
        ],
    )
    found = lines(root)
    fight = fake.FIGHTS["vader"]
    spent = 20 * (fight.forward + 2 * fight.backward)
    assert found["vader"].collapses == ((20, spent), None, (20, spent))
    assert collapse(*pair(root)) == (20, spent)
    assert collapse(*pair(root, "rlr")) is None
    names, parts = tables.column_groups(list(found.values()))
    column = parts[1].columns[-1]
    assert column.header == "collapse"
    assert dict(zip(names.cells, column.cells, strict=True)) == {
        "base": "–",
        "vader": "2 of 3 runs, from 20",
        "rlr": "0 of 3 runs",
    }
    rows = csv(root)
    assert (rows["vader"]["collapsed"], rows["rlr"]["collapsed"]) == (2, 0)
    assert math.isnan(rows["base"]["collapsed"]) and math.isnan(rows["rlr"]["collapse_step"])
    assert (rows["vader"]["collapse_step"], rows["vader"]["collapse_forward_equivalents"]) == (20, spent)
    assert "Collapse: runs whose diversity stays below 50%" in words.legend(list(found.values()))


def test_without_diversity_or_without_a_collapse_there_is_no_such_column(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "collapse" not in headers(small)
    root = collapsing(tmp_path / "r", monkeypatch, (0,))
    assert "collapse" in headers(root)
    for log in root.glob("cells/*/eval.jsonl"):
        write_rows(log, [row for row in read_rows(log) if row["reward"] != "diversity"])
    assert "collapse" not in headers(root)
    assert lines(root)["vader"].collapses == ()
    assert all(row["collapsed"] is None for row in csv(root).values())
