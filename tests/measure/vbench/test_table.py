"""`bench vbench table`: what it prints, writes, draws and says about rows that do not add up."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from bench.base.errors import BenchError
from bench.cli.main import app
from bench.measure.vbench import aggregate, figures, table
from bench.measure.vbench.dimension_status import DimensionStatus, write_status
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.results import ScoreRow, read
from tests.measure.vbench.test_aggregate import TABLE3, TABLE10
from tests.measure.vbench.videos import write_result

NAMES = {
    f"vbench{part}" for part in (".csv", ".md", ".tex", "_radar.svg", "_radar.png", "_bars.svg", "_bars.png")
}


def run(*arguments: str, width: int = 80, draw: bool = False) -> str:
    given = ["vbench", "table", *arguments, *([] if draw else ["--no-figures"])]
    with mock.patch("bench.cli.vbench.console", Console(width=width)):
        found = CliRunner().invoke(app, given, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_papers_table_as_it_stands_fits_the_terminal(tmp_path: Path, width: int) -> None:
    shown = run(str(TABLE10), "--out", str(tmp_path), width=width)
    wide = [line for line in shown.splitlines() if len(line) > width and not line.startswith("wrote")]
    assert not wide
    words = " ".join(shown.split())
    assert "20 of 24 printed aggregates follow" in words
    assert "modelscope: Quality is printed as 78.05, its dimensions give 76.94 (-1.106" in words
    assert "rlr: Total is printed as 83.14, its dimensions give 83.16 (+0.017" in words


def test_table_3_has_its_weighted_average_and_no_total(tmp_path: Path) -> None:
    shown = run(str(TABLE3), "--out", str(tmp_path))
    assert "Weighted average" in shown
    assert "8 of 8 printed aggregates follow" in " ".join(shown.split())
    assert "Total" not in shown


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    run(str(TABLE10), "--out", str(tmp_path))
    before, after = read([TABLE10]), read([tmp_path / "vbench.csv"])
    assert [row.name for row in after] == [row.name for row in before]
    for old, new in zip(before, after, strict=True):
        assert new.scores == pytest.approx(old.scores)
        assert all(check.consistent for check in table.checks(new))  # its aggregates are recomputed ones
    text = (tmp_path / "vbench.tex").read_text()
    assert r"\toprule" in text and r"open\_sora" in text
    assert "| modelscope | Quality " in (tmp_path / "vbench.md").read_text()


def test_scored_directories_stand_beside_published_models(tmp_path: Path) -> None:
    scores = {name: 0.5 for name in DIMENSIONS if name != "scene"}
    write_result(tmp_path / "mine" / "scores" / "all_eval_results.json", scores)
    status = DimensionStatus(state="done", videos=10, expected=360, partial="10 of the suite's 360 videos")
    write_status(tmp_path / "mine" / "scores", "subject_consistency", status)
    words = " ".join(
        run(str(tmp_path / "mine"), str(TABLE10), "--out", str(tmp_path / "t"), width=200).split()
    )
    assert "mine: no total without scene" in words
    assert "* mine: 10 of the suite's 360 videos: subject consistency" in words
    assert "50.00*" in words
    row = read([tmp_path / "mine"])[0]
    row.scores["subject_consistency"] = 1.0  # better than all, but of ten videos
    rows = [row, *read([TABLE10])]
    assert not table.is_best(rows, row, "subject_consistency")
    written = pd.read_csv(tmp_path / "t" / "vbench.csv").set_index("method")
    assert written.loc["mine", ["total_score", "semantic_score", "scene"]].isna().all()
    assert pd.notna(written.loc["mine", "quality_score"])


def test_stars_and_unit_are_read_again_from_the_csv_that_was_written(tmp_path: Path) -> None:
    scores = dict.fromkeys(DIMENSIONS, 0.5) | {"scene": 0.004}  # 0.4 %: beside 50 it looks like a fraction
    notes = {"scene": "10 of the suite's 430 videos, custom; see: below", "color": "without the filter"}
    before = [ScoreRow("mine", scores, notes=notes), ScoreRow("published", scores)]
    table.write(tmp_path, before)
    after = read([tmp_path / "vbench.csv"])
    assert [row.notes for row in after] == [notes, {}]
    assert [row.scores for row in after] == [pytest.approx(scores)] * 2
    for name in (*DIMENSIONS, *table.AGGREGATES):
        assert [table.cell(row, name) for row in after] == [table.cell(row, name) for row in before]
    assert table.cell(after[0], "total").endswith(table.MARK)
    table.write(tmp_path, [ScoreRow("one", {"scene": 0.004})])
    assert read([tmp_path / "vbench.csv"])[0].scores == {"scene": pytest.approx(0.004)}


def test_only_an_aggregates_own_dimensions_star_it() -> None:
    row = ScoreRow("mine", dict.fromkeys(DIMENSIONS, 0.5), notes={"temporal_flickering": "partial"})
    starred = {name for name in table.AGGREGATES if table.cell(row, name).endswith("*")}
    assert starred == {"quality", "total"}


def test_ones_own_model_has_the_weighted_average() -> None:
    assert "weighted_average" in table.shown(
        [ScoreRow("mine", dict.fromkeys(aggregate.TABLE3, 0.5), whole=True)]
    )


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="cannot write"):
        run(str(TABLE10), "--out", str(tmp_path / "file"))


def test_without_files_all_scored_models_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="nothing was scored"):
        run()
    write_result(tmp_path / "results/vbench/mine/scores/scene_eval_results.json", {"scene": 0.25})
    assert "25.00" in run()
    assert (tmp_path / "results/vbench/vbench.md").is_file()


@pytest.mark.slow
def test_all_files_are_written(tmp_path: Path) -> None:
    run(str(TABLE10), "--out", str(tmp_path), draw=True)
    assert {path.name for path in tmp_path.iterdir()} == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_figures_are_drawn_for_any_number_of_models(tmp_path: Path, count: int) -> None:
    rows = [ScoreRow(f"m{n}", dict.fromkeys(DIMENSIONS, 0.1 + 0.07 * n)) for n in range(count)]
    del rows[0].scores["scene"]
    for path in figures.draw(tmp_path, rows):
        if path.suffix == ".png":
            assert Image.open(path).width > 1000
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_models_have_colours_of_their_own_and_methods_keep_theirs() -> None:
    found = figures.colours(read([TABLE10]))
    assert len(set(found.values())) == len(found) == 8
    assert found["rlr"] == "#D55E00"


@pytest.mark.slow
def test_help_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from bench.cli.main import app; "
        "r = CliRunner().invoke(app, ['vbench', '--help']); assert 'generate' in r.output; "
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_scored_directory_shows_what_is_missing(tmp_path: Path) -> None:
    write_result(tmp_path / "mine" / "scores" / "all_eval_results.json", {"temporal_flickering": 0.9})
    shown = run(str(tmp_path / "mine"), "--out", str(tmp_path / "t"))
    assert shown.count(" missing") == 15 + 1  # the remark
    assert "15 of 16 dimensions are missing: no total" in " ".join(shown.split())
