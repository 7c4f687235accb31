"""A results directory as tables."""

from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.api import results, tables
from bench.base.errors import BenchError
from bench.run.experiment import Ended
from tests.report import fake, fake_gradients

KEYS = ["cell", "model", "reward", "prompts", "method", "label", "seed"]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> bench.Results:
    """Two methods with two seeds each; one of them failed."""
    root = tmp_path_factory.mktemp("made up")
    return bench.load(fake.write(root, ["rlr", "zo"], (0, 1), 20, {"zo": "failed"}, pictures=False))


def test_rows_say_what_they_are_about_and_count_what_is_there(made_up: bench.Results) -> None:
    for name in ("cells", "metrics", "terms"):
        assert list(getattr(made_up, name).columns[:7]) == KEYS
    assert made_up.cells["state"].tolist() == ["done", "done", "done", "failed", "failed"]
    assert made_up.cells["seed"].tolist() == [pd.NA, 0, 1, 0, 1]
    assert made_up.unfinished["method"].tolist() == ["zo", "zo"]
    assert made_up.metrics.groupby("label").size().to_dict() == {"rlr": 40, "zo": 20}
    assert made_up.terms.groupby(["label", "term"]).size().to_dict() == {
        ("rlr", "fo"): 40, ("rlr", "ho"): 40, ("rlr", "zo"): 40, ("zo", "zo"): 20,
    }  # fmt: skip
    one = made_up.evaluations.query("label == 'rlr' and seed == 1 and step == 20 and reward == 'jpeg'")
    assert len(one) == 2 * len(fake.PROMPTS)
    assert set(one["trained_on"]) == {"clip"}


def test_no_column_that_holds_numbers_is_of_objects(made_up: bench.Results) -> None:
    for name in ("cells", "metrics", "terms", "evaluations", "inference", "summary"):
        kinds = getattr(made_up, name).dtypes.astype(str)
        assert set(kinds) <= {"string", "Int64", "float64"}, name
    assert made_up.metrics["nfe_forward"].dtype == "Int64"
    assert made_up.metrics["grad_norm"].dtype == "float64"
    assert made_up.terms.dropna(subset="variance").empty


def test_the_summary_has_the_numbers_of_the_reports_file(made_up: bench.Results, tmp_path: Path) -> None:
    page = bench.report(made_up.path, out=tmp_path)
    assert page == tmp_path / "report.html"
    assert page.is_file()
    written = pd.read_csv(tmp_path / "summary.csv")
    shown = made_up.summary
    assert shown["label"].tolist() == written["method"].tolist() == ["base", "rlr", "zo"]
    for column in ("score", "gain", "gain_low", "train_seconds"):
        assert shown[column].to_numpy() == pytest.approx(written[column].to_numpy(), rel=1e-6, nan_ok=True)


def test_it_shows_where_it_is_how_far_and_what_was_reached(made_up: bench.Results) -> None:
    text, page = repr(made_up), made_up._repr_html_()
    assert text.startswith(f"Results of {made_up.path}: 5 cells, 3 done, 2 failed\n")
    assert max(map(len, text.splitlines()[1:])) <= 100
    for shown in (text, page):
        assert "tiny, trained on clip" in shown
        assert "rlr" in shown
    assert page.count("<table>") == 3


def test_settings_that_differ_stand_in_the_label(tmp_path: Path) -> None:
    fake.write(tmp_path, [], pictures=False)
    for n, h in enumerate((2, 3)):
        fake._cell(tmp_path, f"rlr-{n}", fake.config("rlr", 0, h=h), "pending", [], [], False)
    assert bench.load(tmp_path).cells["label"].tolist() == ["base", "rlr (h=2)", "rlr (h=3)"]


def test_a_cell_that_cannot_be_read_is_a_row_all_the_same(tmp_path: Path) -> None:
    fake.write(tmp_path, ["rlr"], steps=10, pictures=False)
    (cell,) = (tmp_path / "cells").glob("rlr-*")
    (cell / "config.yaml").write_text("- no settings\n")
    row = bench.load(tmp_path).cells.iloc[1]
    assert (row["cell"], row["state"]) == (cell.name, "unreadable")
    assert pd.isna(row["method"])
    assert "expected a mapping" in row["problem"]


def test_gradient_profiles_are_a_table_with_what_the_terminal_shows(tmp_path: Path) -> None:
    found = bench.load(fake_gradients.write(tmp_path)).gradients
    assert set(found["method"]) == {"full_bp", "rlr", "truncated_bp"}
    assert found["reference"].dtype == "boolean"
    assert found["draws"].tolist() == [96, 96, 96]
    product = (found["variance"] * found["seconds"]).to_numpy()
    assert found["variance_x_s"].to_numpy() == pytest.approx(product)
    biased = found.set_index("method").loc["truncated_bp"]
    assert (biased["verdict"], biased["reward"]) == (
        "biased",
        fake_gradients.config("x", fake_gradients.Fake(), "init", 0).reward.name,
    )
    assert tables.gradients(tmp_path / "nothing").empty


def test_a_directory_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match="no results here"):
        bench.load(tmp_path)
    assert results.load_if_there(tmp_path).cells.empty


def test_an_interrupt_and_cells_that_are_not_done_are_raised(made_up: bench.Results) -> None:
    with pytest.raises(KeyboardInterrupt, match="go on"):
        results.checked(made_up, Ended(130, messages=("go on",)), check=False)
    with pytest.raises(SystemExit, match="143"):
        results.checked(made_up, Ended(143), check=False)
    with pytest.raises(bench.CellsFailed, match="another process has them"):
        results.checked(made_up, Ended(1), check=True)
    assert results.checked(made_up, Ended(1), check=False) is made_up
    assert results.checked(made_up, Ended(0), check=True) is made_up


def test_a_report_of_no_directory_is_a_mistake() -> None:
    with pytest.raises(BenchError, match="names no results directory"):
        bench.report([])
