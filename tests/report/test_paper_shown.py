"""What is shown of the paper's tables: on the terminal, in files and on the page."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.report import contests
from bench.report.load import load
from bench.report.paper_section import section
from bench.report.report import write_report
from tests.report.fake_paper import cell, rlr
from tests.report.test_paper import BASE, BETTER, shown


def test_figures_show_ours_at_the_evaluations_beside_the_claim(tmp_path: Path) -> None:
    command = "bench run --config figure5"
    cell(tmp_path, "ddpo", {"aes": 4.5}, reward="aes", evaluations=[(5, 0.1), (10, 0.2)], command=command)
    text = " ".join(shown(section(load(tmp_path))).split())
    assert "Figure 5: reward against steps, aes on sd14" in text
    assert "4.60" in text and "4.70" in text and "DDPO is very slow" in text


def test_video_cells_name_the_command_that_makes_tables_3_and_10(tmp_path: Path) -> None:
    cell(
        tmp_path,
        "vader",
        BETTER,
        model="videocrafter2",
        prompts="vbench",
        command="bench run --config table3",
    )
    assert "python -m bench vbench generate --lora" in shown(section(load(tmp_path)))


def test_a_directory_without_such_cells_is_an_error_that_names_the_experiments(tmp_path: Path) -> None:
    cell(tmp_path, "vader", BETTER)
    with pytest.raises(BenchError, match=r"none of its 1 cells belongs .* --config table5 --out"):
        section(load(tmp_path))


def test_latex_is_balanced_and_escaped(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr())
    section(load(tmp_path)).write(tmp_path, tmp_path)
    text = (tmp_path / "paper.tex").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert sum(r"\begin{tabular}" in x for x in lines) == sum(r"\end{tabular}" in x for x in lines) == 1
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 5 and len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert not re.search(r"(?<!\\)[%_#$]", "\n".join(lines))


def test_nothing_is_wider_than_the_terminal_but_commands(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr(), command="bench run --config table2")
    cell(tmp_path, "rlr", BETTER, settings=rlr(), command="bench run --config table2", seed=1)
    lines = shown(section(load(tmp_path))).splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("  "))


@pytest.mark.slow
def test_the_report_prints_the_papers_tables_alone_and_has_them_first_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr())
    monkeypatch.setattr(contests, "all_figures", lambda contest: [])
    stream = io.StringIO()
    page = write_report(tmp_path, Console(file=stream, width=80), paper=True).read_text()
    assert "Table 5: RLR without its terms" in stream.getvalue()
    assert "steering term" not in stream.getvalue()
    assert 0 < page.index("Beside the RLR paper") < page.index("sd14, trained on hpsv2")
    assert "-2.22" in page and "--methods" not in page[page.index("Reproduce") :]
    assert {path.name for path in (tmp_path / "report").glob("paper.*")} == {
        "paper.csv",
        "paper.md",
        "paper.tex",
    }
    write_report(tmp_path, Console(file=io.StringIO(), width=80))
    assert not list((tmp_path / "report").glob("paper.*"))
    assert "Beside the RLR paper" not in (tmp_path / "report" / "report.html").read_text()
