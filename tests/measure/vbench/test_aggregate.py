"""Quality, Semantic, Total and the weighted average, against the published tables."""

from pathlib import Path

import pytest

from bench.measure.vbench import aggregate
from bench.measure.vbench.dimensions import DIMENSIONS, QUALITY, SEMANTIC
from bench.measure.vbench.results import ScoreRow, read
from bench.measure.vbench.table import checks

PAPER = Path(__file__).parents[3] / "results" / "paper"
TABLE10 = PAPER / "table10_vbench.csv"
TABLE3 = PAPER / "table03_vbench_subset.csv"
ROWS = {row.name: row for row in read([TABLE10])}


@pytest.mark.parametrize("name", [name for name in ROWS if name != "modelscope"])
def test_table_10_follows_from_its_dimensions_within_5_hundredths(name: str) -> None:
    found = checks(ROWS[name])
    assert [check.aggregate for check in found] == ["quality", "semantic", "total"]
    assert all(abs(check.difference) < 0.0005 for check in found)


def test_rlr_alone_of_them_is_off_by_more_than_rounding() -> None:
    off = {
        (n, c.aggregate): 100 * c.difference for n, r in ROWS.items() for c in checks(r) if not c.consistent
    }
    assert off.pop(("modelscope", "quality")) == pytest.approx(-1.106, abs=0.001)
    assert off.pop(("modelscope", "total")) == pytest.approx(-0.887, abs=0.001)
    assert off == {
        ("rlr", "quality"): pytest.approx(0.026, abs=0.001),
        ("rlr", "total"): pytest.approx(0.017, abs=0.001),
    }


def test_modelscope_follows_if_its_background_consistency_repeats_the_subjects_number() -> None:
    """With 89.87 for the subject and 95.29 for the background, all three printed aggregates follow."""
    row = ROWS["modelscope"]
    scores = row.scores | {"subject_consistency": 0.8987, "background_consistency": 0.9529}
    found = checks(ScoreRow("", scores, row.printed, row.half_units))
    assert len(found) == 3
    assert all(check.consistent for check in found)


@pytest.mark.parametrize("row", read([TABLE3]), ids=lambda row: row.name)
def test_every_weighted_average_of_table_3_follows(row: ScoreRow) -> None:
    (check,) = checks(row)
    assert check.aggregate == "weighted_average"
    assert check.consistent


def test_the_ends_of_the_ranges_give_0_and_1() -> None:
    for end, value in (("low", 0.0), ("high", 1.0)):
        scores = {name: getattr(d, end) for name, d in DIMENSIONS.items()}
        assert aggregate.value("total", scores) == pytest.approx(value)


@pytest.mark.parametrize("absent", DIMENSIONS)
def test_nothing_stands_in_for_a_dimension_without_a_score(absent: str) -> None:
    scores = {name: 0.5 for name in DIMENSIONS if name != absent}
    assert aggregate.value("total", scores) is None
    assert (aggregate.value("quality", scores) is None) == (absent in QUALITY)
    assert (aggregate.value("semantic", scores) is None) == (absent in SEMANTIC)
    assert (aggregate.value("weighted_average", scores) is None) == (absent in aggregate.TABLE3)


def test_dynamic_degree_counts_half() -> None:
    scores = {name: DIMENSIONS[name].low for name in QUALITY}
    assert aggregate.value("quality", scores | {"dynamic_degree": 1.0}) == pytest.approx(0.5 / 6.5)


def test_rounding_covers_the_worst_case() -> None:
    scores, unit = dict.fromkeys(DIMENSIONS, 0.9), 0.00005
    units = dict.fromkeys([*DIMENSIONS, *aggregate.AGGREGATES], unit)
    pushed = {name: value + unit for name, value in scores.items()}
    for name in aggregate.AGGREGATES:
        before, after = aggregate.value(name, scores), aggregate.value(name, pushed)
        assert before is not None and after is not None
        assert after - before + unit == pytest.approx(aggregate.rounding(name, units))
