"""The summary as text."""

import dataclasses
import io
import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.base import columns
from bench.report import tables, words
from bench.report.groups import contests
from bench.report.load import load
from bench.report.summary import Line
from bench.report.summary import lines as lines_of
from tests.report import fake


@pytest.fixture
def lines(results: Path) -> list[Line]:
    return lines_of(contests(load(results))[0])


def printed(lines: list[Line], width: int) -> str:
    stream = io.StringIO()
    tables.print_summary(lines, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_nothing_is_cut_off_or_wrapped_at_any_width(lines: list[Line], width: int) -> None:
    text = printed(lines, width)
    assert max(map(len, text.splitlines())) <= width
    names, parts = tables.column_groups(lines)
    for column in (names, *(c for part in parts for c in part.columns if not c.optional)):
        assert all(cell in text for cell in (column.header, *column.cells))


@pytest.mark.slow
def test_each_part_is_one_table_at_80_columns(lines: list[Line]) -> None:
    names, parts = tables.column_groups(lines)
    assert [len(columns.pack(names, part.columns, 80)) for part in parts] == [1, 1, 1]


@pytest.mark.slow
def test_the_table_says_which_cells_are_not_done(lines: list[Line]) -> None:
    text = printed(lines, 80)
    assert "running @30" in text and "failed" in text


def test_a_complete_run_needs_no_state_column(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], pictures=False)
    names, parts = tables.column_groups(lines_of(contests(load(root))[0]))
    assert names.cells == ("base", "rlr")
    assert "state" not in [c.header for c in parts[0].columns]


@pytest.mark.slow
def test_rewards_that_were_not_trained_on_are_shown_with_their_gain(lines: list[Line]) -> None:
    headers = [c.header for c in tables.column_groups(lines)[1][1].columns]
    assert headers == ["colourfulness gain", "jpeg gain", "diversity", "distance"]


@pytest.mark.slow
def test_the_csv_holds_unrounded_numbers_and_no_number_for_a_failed_cell(lines: list[Line]) -> None:
    frame = tables.frame(lines).set_index("method")
    vader = next(r for r in lines if r.group.label == "vader")
    assert frame.loc["vader", "gain"] == vader.gains["clip"].mean
    fight = fake.FIGHTS["vader"]
    assert frame.loc["vader", "forward_equivalents"] == 60 * (fight.forward + 2 * fight.backward)
    assert pd.isna(frame.loc["zo", "score"]) and frame.loc["zo", "status"] == "failed"


@pytest.mark.slow
def test_markdown_and_latex_have_one_line_per_method(lines: list[Line]) -> None:
    assert len(tables.markdown(lines).splitlines()) == 2 + len(lines)
    latex = tables.markdown(lines, "latex_booktabs")
    assert latex.count(r"\\") == 1 + len(lines) and r"\toprule" in latex


def test_one_seed_is_no_claim_and_no_colour(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["vader", "random-direction"], pictures=False)
    lines = lines_of(contests(load(root))[0])
    assert words.headline(lines).startswith("No claim is made of any method: that takes two seeds or more")
    assert words.headline(lines).endswith("over prompts only.")
    _, parts = tables.column_groups(lines)
    headers = [c.header for c in parts[0].columns]
    assert "gain ± SE (prompts only)" in headers and "p" not in headers
    assert not any(any(c.tones) for part in parts for c in part.columns)


def all_lines(root: Path) -> list[Line]:
    """Those of a directory's only contest."""
    return lines_of(contests(load(root))[0])


def judged(root: Path, *methods: str) -> tuple[str, dict[str, int]]:
    """The headline of a run of three seeds, and the colour of each method's gain."""
    fake.write(root, methods, seeds=(0, 1, 2), pictures=False)
    lines = all_lines(root)
    return words.headline(lines), {line.group.label: tables.verdict(line) for line in lines}


def test_a_gain_counts_against_the_null_row(tmp_path: Path) -> None:
    text, verdicts = judged(tmp_path, "vader", "zo", "rlr", "random-direction")
    assert verdicts == {"base": 0, "vader": 1, "zo": 0, "rlr": -1, "random-direction": 0}
    assert text.startswith(
        "1 of 3 methods raise held-out clip above that of both the base model and random-direction, "
        "1 lowers it below both (p < 0.05 for"
    )


@pytest.mark.parametrize(("luck", "method", "gain"), [(-0.1, "zo", 0.0), (0.15, "vader", 0.1)])
def test_a_null_row_that_fell_or_rose_by_luck_makes_no_winner_and_no_loser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, luck: float, method: str, gain: float
) -> None:
    for name, own in ((method, gain), ("random-direction", luck)):
        changed = dataclasses.replace(fake.FIGHTS[name], gain=own, pace=1.0)
        monkeypatch.setitem(fake.FIGHTS, name, changed)
    text, verdicts = judged(tmp_path, method, "random-direction")
    (line,) = (found for found in all_lines(tmp_path) if found.group.label == method)
    assert line.over_null.p < 0.01 and line.over_null.mean == pytest.approx(gain - luck, abs=0.02)
    assert set(verdicts.values()) == {0} and text.startswith("0 of 1 methods raise held-out clip")
    frame = tables.frame([line])
    assert frame.loc[0, "over_null"] == line.over_null.mean and frame.loc[0, "claim_p_holm"] > 0.05


def test_without_a_null_row_the_headline_says_so(tmp_path: Path) -> None:
    text, verdicts = judged(tmp_path, "vader", "zo")
    assert verdicts == {"base": 0, "vader": 1, "zo": 0}
    assert text.startswith("1 of 2 methods raise held-out clip above that of the base model (p < 0.05 for")
    assert "There is no null row (random-direction)." in text


def test_rewards_beside_the_trained_one_are_coloured_as_one_family_of_claims(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["vader", "zo", "random-direction"], seeds=(0, 1, 2), pictures=False)
    lines = lines_of(contests(load(root))[0])

    def coloured(**p: float) -> set[str]:
        """The columns that have a colour if the p values are these in one line and 0.5 in all others."""
        for k, line in enumerate(lines):
            for name, value in p.items():
                line.gains[name] = dataclasses.replace(line.gains[name], p=value if k == 1 else 0.5)
        return {c.header for c in tables.column_groups(lines)[1][1].columns if any(c.tones)}

    assert [line.gains["jpeg"].claims for line in lines] == [False, True, True, True]
    assert coloured(colourfulness=0.03, jpeg=0.01) == set()  # of six claims
    assert coloured(colourfulness=0.009, jpeg=0.008) == {"colourfulness gain", "jpeg gain"}


def test_the_headline_without_any_evaluation_is_honest(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["zo"], states={"zo": "failed"}, pictures=False)
    assert words.headline(lines_of(contests(load(root))[0])).startswith("No method has an evaluation")


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (480, "480"), (12_800, "12.8k"), (3.4e6, "3.4M")])
def test_counts_are_short(value: float, text: str) -> None:
    assert tables.short_count(value) == text
    assert tables.short_count(math.nan) == columns.NONE
