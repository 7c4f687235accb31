"""What the page's charts are drawn from."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import chart_data as module
from bench.report.chart_data import MOST, as_json, chart_data
from bench.report.groups import contests
from bench.report.load import load
from bench.report.pareto import front
from bench.report.summary import Line, contest_lines, lines
from tests.report import fake


def lines_of(results: Path) -> list[Line]:
    """Of its only contest."""
    ((_, found),) = contest_lines(load(results))
    return found


@pytest.mark.slow
def test_charts_show_what_the_table_says(results: Path) -> None:
    found = lines_of(results)
    data = chart_data(found[0].contest, found)
    shown = [line for line in found if not line.is_base and line.group.cells]
    assert [m["label"] for m in data["methods"]] == [line.group.label for line in shown]  # zo failed
    for m, line in enumerate(shown):
        last = [point for point in data["curves"][0]["points"] if point["m"] == m][-1]
        assert last["mean"] == line.score.mean and last["steps"] == line.cost.steps
        assert last["forward_equivalents"] == line.cost.forward_equivalents
        (gain,) = (row for row in data["gains"][1]["rows"] if row["m"] == m)
        untouched = line.gains[data["gains"][1]["reward"]]
        assert (gain["mean"], gain["low"]) == (untouched.mean, untouched.low)
        (cost,) = (row for row in data["fronts"]["memory"] if row["m"] == m)
        assert cost["cost"] == line.cost.memory / 2**20
    assert [c["reward"] for c in data["curves"]] == ["clip", "colourfulness", "diversity", "jpeg"]


@pytest.mark.slow
def test_the_collapse_is_where_the_table_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake.FIGHTS, "vader", replace(fake.FIGHTS["vader"], diversity=-0.3))
    root = fake.write(tmp_path / "r", ["vader", "rlr"], steps=30, pictures=False)
    found = lines_of(root)
    data = chart_data(found[0].contest, found)
    (vader,) = (m for m, look in enumerate(data["methods"]) if look["label"] == "vader")
    assert data["collapses"] == [
        {"m": vader, "steps": 20, "seconds": pytest.approx(20 * 0.9), "forward_equivalents": 20 * (168 + 16)}
    ]
    (diversity,) = (c for c in data["curves"] if c["reward"] == "diversity")
    base, half = (one["value"] for one in diversity["levels"])
    assert half == base / 2


def test_a_contest_without_evaluations_of_methods_has_no_charts(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["zo"], states={"zo": "pending"}, pictures=False)
    (contest,) = contests(load(root))
    assert chart_data(contest, lines(contest)) == {}


def test_what_is_not_known_is_null_and_nothing_ends_the_script() -> None:
    text = as_json({"a": [math.nan, math.inf, 1 / 3, 2.0, 7, "</script><b>"]})
    assert "<" not in text
    assert json.loads(text) == {"a": [None, None, 0.333333, 2, 7, "</script><b>"]}


def test_every_look_of_a_method_can_be_drawn() -> None:
    drawn = [module._look(look) for look in (*module.looks({f"m{n}": f"m{n}" for n in range(21)}).values(),)]
    assert len({json.dumps(look) for look in drawn}) == 21
    assert all(look["colour"] == "currentColor" or look["colour"].startswith("#") for look in drawn)


@pytest.mark.parametrize("count", [0, 1, MOST, MOST + 1, 3 * MOST + 7])
def test_long_lines_are_thinned_and_keep_their_end(count: int) -> None:
    found = module._thinned(pd.DataFrame({"x": range(count)}))["x"].tolist()
    assert len(found) <= MOST and (not count or found[-1] == count - 1)
    assert len({b - a for a, b in itertools.pairwise(found)}) <= 1


def test_the_front_has_what_nobody_beats() -> None:
    points = [(1.0, 0.1), (2.0, 0.3), (2.0, 0.2), (3.0, 0.3), (0.5, -0.1), (2.0, 0.3)]
    assert front(points) == [True, True, False, False, False, True]


def test_whoever_is_beaten_is_beaten_by_the_front_or_the_base_model() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [
            (float(c), float(g)) for c, g in zip(rng.integers(1, 6, 8), rng.integers(-2, 4, 8), strict=True)
        ]
        best = front(points)
        edge = [(0.0, 0.0), *(p for p, on in zip(points, best, strict=True) if on)]
        for (cost, gain), on in zip(points, best, strict=True):
            beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in edge)
            assert beaten is not on
