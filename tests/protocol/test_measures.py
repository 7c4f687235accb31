"""What is said of runs: times to a target, profiles, collapse, over-optimisation, claims."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.protocol.measures import (
    collapses,
    gain,
    integral,
    integral_ranges,
    median_time,
    over,
    over_optimised,
    profile,
    ratios,
    time_to_target,
    times,
)
from bench.protocol.reading import RUNS, Point, Tables, read_record
from bench.report.groups import NULL
from bench.report.stats import Estimate
from tests.protocol.records import Made, change, maker

NEVER = math.inf


def curve(*points: tuple[float, float]) -> list[Point]:
    """(forwards, score) as evaluations."""
    return [
        Point(line=n, method="m", step=n, forwards=x, reward="clip", score=y)
        for n, (x, y) in enumerate(points, start=2)
    ]


@pytest.mark.parametrize(
    ("points", "time"),
    [
        ([(100, 0.5), (200, 0.7)], 150),  # between two evaluations
        ([(100, 0.8)], 50),  # between the base model and the first one
        ([(100, 0.6), (200, 0.4)], 100),  # at an evaluation, whatever comes after it
        ([(100, 0.4), (200, 0.3), (300, 0.5), (400, 0.9)], 325),
        ([(100, 0.59), (200, 0.599)], NEVER),
        ([], NEVER),
    ],
)
def test_time_to_target_is_where_the_straight_line_first_reaches_it(
    points: list[tuple[float, float]], time: float
) -> None:
    assert time_to_target(curve(*points), 0.4, 0.6) == pytest.approx(time)
    mirrored = curve(*((x, -y) for x, y in points))
    assert time_to_target(mirrored, -0.4, -0.6, sign=-1) == pytest.approx(time)


def test_a_target_that_the_base_model_reaches_takes_no_time() -> None:
    assert time_to_target(curve((100, 0.2)), 0.6, 0.6) == 0


@pytest.mark.parametrize(
    ("found", "middle"),
    [
        ([3, 1, 2], 2),
        ([1, 2, NEVER], 2),
        ([1, NEVER, NEVER], NEVER),
        ([1, 2, 3, NEVER], 2.5),
        ([1, 2, NEVER, NEVER], NEVER),  # half of the runs are not more than half
        ([NEVER, NEVER], NEVER),
    ],
)
def test_misses_take_part_in_the_median(found: Sequence[float], middle: float) -> None:
    assert median_time(found) == middle


def test_a_median_of_no_runs_is_none() -> None:
    assert math.isnan(median_time([]))


def test_profiles_of_an_example_by_hand() -> None:
    """Three methods on four workloads, one of which nobody solves; b sits one out, c has no run on one."""
    found = ratios(
        {
            "a": {"w": 10, "x": 40, "y": NEVER, "z": NEVER},
            "b": {"w": 20, "x": 10, "z": NEVER},
            "c": {"w": NEVER, "x": 50, "y": 7, "z": math.nan},
        }
    )
    assert found == {
        "a": {"w": 1, "x": 4, "y": NEVER},
        "b": {"w": 2, "x": 1, "y": NEVER},
        "c": {"w": NEVER, "x": 5, "y": 1},
    }
    a, b, c = (list(found[name].values()) for name in "abc")
    assert [profile(a, tau) for tau in (1, 2, 3.9, 4)] == [1 / 3, 1 / 3, 1 / 3, 2 / 3]
    assert integral(a) == pytest.approx(1 / 3)
    assert integral(b) == pytest.approx((2 / 3 + 1) / 3)
    assert integral(c) == pytest.approx(1 / 3)
    taus = np.linspace(1, 4, 30_001)
    assert integral(b) == pytest.approx(np.mean([profile(b, tau) for tau in taus]), abs=1e-4)


def test_profiles_where_nobody_solves_anything() -> None:
    found = ratios({"a": {"w": NEVER}, "b": {}})
    assert found == {"a": {}, "b": {}}
    assert math.isnan(integral(list(found["a"].values())))


@pytest.mark.parametrize(
    ("times", "low", "high"),
    [
        ([2, 2, 2], 2 / 3, 2 / 3),
        ([2, 2, NEVER], 0, 2 / 3),  # more than half of a draw's runs arrive in 20 of 27 draws
        ([2] * 15 + [NEVER], 2 / 3, 2 / 3),
        ([2, 2, NEVER, NEVER], 0, 2 / 3),  # in 5 of 16, though the median of the four is infinite
        ([NEVER, NEVER], 0, 0),
        ([], 0, 0),
    ],
)
def test_a_profiles_range_is_that_of_drawing_runs_anew(
    times: Sequence[float], low: float, high: float
) -> None:
    found = integral_ranges({"a": {"w": [1, 1]}, "b": {"w": times}})
    assert found["a"] == (1, 1)
    assert found["b"] == pytest.approx((low, high))


def test_a_profiles_range_lies_around_its_integral_and_is_the_same_each_time() -> None:
    runs = {
        "a": {"w": [9, 10, 11, 13], "x": [24, 60, 30, NEVER]},
        "b": {"w": [20, 25, 15, 14], "x": [22, 25]},
    }
    found = integral_ranges(runs)
    assert found == integral_ranges(runs)
    medians = {m: {w: median_time(times) for w, times in own.items()} for m, own in runs.items()}
    for method, own in ratios(medians).items():
        low, high = found[method]
        assert 0 < low < integral(list(own.values())) < high < 1


def test_where_no_draw_solves_anything_there_is_no_range() -> None:
    found = integral_ranges({"a": {"w": [NEVER, NEVER]}, "b": {}})
    assert all(math.isnan(value) for span in found.values() for value in span)


def test_no_time_at_all_is_the_best_one() -> None:
    assert ratios({"a": {"w": 0}, "b": {"w": 3}}) == {"a": {"w": 1}, "b": {"w": NEVER}}


def test_collapsed_runs_are_counted_with_their_median_step(tmp_path: Path) -> None:
    tables = easy(tmp_path)
    found = collapses(tables, "truncated_bp")  # 0.2 to 0.05 in a straight line, at steps 3, 6, 9 and 12
    assert (found.runs, found.of, found.step) == (4, 4, 9)
    assert collapses(tables, "ddpo").runs == 0


def easy(folder: Path, **methods: Made) -> Tables:
    """The tables of the first workload."""
    made = maker(seeds=4)
    made.methods |= methods
    return read_record(made.write(folder / "record")).tables["easy"]


def test_gains_are_paired_by_prompt_and_counted_from_the_base_model(tmp_path: Path) -> None:
    tables = easy(tmp_path)
    found = gain(tables, "truncated_bp", "clip", 4)
    assert found.claims and (found.units, found.seeds) == (6, 4)
    assert abs(found.mean - 0.2) < 4 * found.se < 0.02  # of prompts that differ by 0.05
    beyond = over(tables, "truncated_bp", NULL, "clip", 4)
    by_hand = found.mean - gain(tables, NULL, "clip", 4).mean
    assert beyond.mean == pytest.approx(by_hand) and beyond.claims


def test_of_a_method_with_a_miss_nothing_is_claimed(tmp_path: Path) -> None:
    tables = easy(tmp_path)
    for found in (gain(tables, "ddpo", "clip", 4), over(tables, "ddpo", NULL, "clip", 4)):
        assert found.seeds == 3 and math.isfinite(found.mean) and not found.claims


def test_a_run_that_missed_takes_infinitely_long_and_one_that_has_not_ended_is_not_there(
    tmp_path: Path,
) -> None:
    folder = maker().write(tmp_path / "record")
    found = times(read_record(folder).tables["easy"], "truncated_bp", "clip", 0.7)
    assert len(found) == 4 and all(0 < time < 5900 for time in found)
    lines = {"failed": 1, "running": 2}

    def end(rows: list[dict[str, str]]) -> None:
        for state, seed in lines.items():
            next(r for r in rows if (r["method"], r["seed"]) == ("truncated_bp", str(seed)))["state"] = state

    change(folder / "easy" / RUNS, end)
    now = times(read_record(folder).tables["easy"], "truncated_bp", "clip", 0.7)
    assert now == [found[0], NEVER, found[3]]


@pytest.mark.parametrize(
    ("trained", "others", "marked"),
    [(0.1, (-0.1, -0.1), True), (0.1, (-0.1, 0.0), False), (-0.1, (-0.1, -0.1), False), (0.1, (), False)],
)
def test_over_optimised_is_up_in_the_trained_reward_and_down_in_all_others(
    trained: float, others: Sequence[float], marked: bool
) -> None:
    names = ("jpeg", "colourfulness")
    rest = {name: _estimate(mean) for name, mean in zip(names, others, strict=False)}
    assert over_optimised(_estimate(trained), rest, "clip") is marked


def _estimate(mean: float) -> Estimate:
    return Estimate(mean, 0.01, mean - 0.02, mean + 0.02, 0.9 if mean == 0 else 0.001, 6, 3)
