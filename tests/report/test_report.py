"""The whole report."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.report import contests as module
from bench.report.report import write_report
from tests.report import fake

FIGURES = ["reward", "reward_vs_steps", "reward_vs_seconds", "reward_vs_forward_equivalents"]
FIGURES += ["gains", "training_reward", "term_norms"]


@pytest.mark.slow
def test_figures_exist_in_both_formats_and_are_not_empty(report: tuple[Path, str]) -> None:
    folder = report[0].parent
    for name in FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / f"{name}.svg").read_text()
        assert svg.count("<path") > 10 and "<svg" in svg
    assert (folder / "grid.png").stat().st_size > 10_000


def test_the_page_is_self_contained(report: tuple[Path, str]) -> None:
    page = report[0].read_text()
    markup = re.sub(r"(?s)<script.*?</script>", "", page)
    links = re.findall(r"""(?:src|href|action|poster|data)\s*=\s*["']([^"']*)""", markup)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|<link|<iframe", markup)
    assert not re.search(r"<script[^>]*src", page)
    assert "default-src 'none'; img-src data:" in page  # so that a browser would refuse anything else


def test_the_page_names_what_failed_and_why_and_how_to_reproduce(report: tuple[Path, str]) -> None:
    page = report[0].read_text()
    assert "RuntimeError: NaN reward at step 31" in page
    assert "This is a partial view" in page
    assert "python -m bench run" in page and "git checkout" in page


def test_the_terminal_shows_table_failures_and_where_the_report_is(report: tuple[Path, str]) -> None:
    path, text = report
    assert "Held-out reward" in text and "steering term" in text
    assert "RuntimeError: NaN reward at step 31" in text
    assert f"report: {path}" in text


def test_no_temporary_file_is_left(report: tuple[Path, str]) -> None:
    assert not list(report[0].parent.glob(".*"))


@pytest.mark.slow
def test_the_same_store_gives_the_same_bytes(
    results: Path, report: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["summary.csv", "summary.md", "summary.tex", "comparison.csv", "report.html"]
    before = {name: (report[0].parent / name).read_bytes() for name in names}
    monkeypatch.setattr(module, "all_figures", lambda contest: [])  # slow, and has a test of its own
    write_report(results, Console(file=io.StringIO()))
    assert {name: (report[0].parent / name).read_bytes() for name in names} == before


def test_text_from_runs_cannot_inject_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake.write(tmp_path / "r", ["zo"], states={"zo": "failed"}, pictures=False)
    next(root.glob("cells/zo-*/traceback.txt")).write_text("ValueError: <script>alert(1)</script> [/bold]")
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    page = write_report(root, Console(file=io.StringIO())).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake.write(tmp_path / "r", ["zo"], states={"zo": "failed"}, pictures=False)
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    stale = root / "report" / "gains-another_part.svg"
    stale.parent.mkdir()
    stale.write_text("<svg/>")
    write_report(root, Console(file=io.StringIO()))
    assert not stale.exists()


def test_a_directory_without_results_is_an_error_and_not_an_empty_report(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no results here"):
        write_report(tmp_path, Console(file=io.StringIO()))
    (tmp_path / "cells" / "rlr-tiny").mkdir(parents=True)
    with pytest.raises(BenchError, match="none of its 1 cells"):
        write_report(tmp_path, Console(file=io.StringIO()))
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_reporting_imports_no_torch() -> None:
    code = "import sys, bench.report.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.silent
def test_damaged_pictures_do_not_end_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake.write(tmp_path / "r", ["zo"], steps=10)
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    for torn in root.glob("cells/*/samples/*/*.png"):
        torn.write_text("no picture")
    stream = io.StringIO()
    assert write_report(root, Console(file=stream)).is_file()
    assert "was left out: no picture" in " ".join(stream.getvalue().split())


@pytest.mark.slow
@pytest.mark.silent
def test_report_of_a_directory_that_cannot_be_written_to_says_so_at_once_and_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fake.write(tmp_path / "r", ["zo"], steps=10, pictures=False)
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    (root / "report").write_text("in the way")  # as root, every directory can be written to
    stream = io.StringIO()
    with pytest.raises(BenchError, match=r"cannot write a report to .*--out DIRECTORY"):
        write_report(root, Console(file=stream))
    assert stream.getvalue() == ""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.png").touch()
    page = write_report(root, Console(file=io.StringIO()), tmp_path / "elsewhere")
    assert page == tmp_path / "elsewhere" / "report.html"
    assert (tmp_path / "elsewhere" / "summary.csv").is_file()
    assert (tmp_path / "elsewhere" / "mine.png").is_file()
    assert (root / "report").read_text() == "in the way"
