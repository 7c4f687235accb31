"""Gradient profiles in the report."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.measure.gradients import show
from bench.measure.gradients.probe import LEVEL
from bench.measure.gradients.profiles import rows
from bench.measure.gradients.store import ProbeDir, probe_id
from bench.measure.gradients.table import curves, parts
from bench.report import contests
from bench.report import gradients as module
from bench.report.report import write_report
from bench.run.store import WorkState
from tests.report import fake, fake_gradients
from tests.report.fake_gradients import FAKES, Fake

pytestmark = pytest.mark.slow

TABLES = ["gradients.csv", "gradients_terms.csv", "gradients_steps.csv", "gradients_cosine.csv"]


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow and have tests of their own."""
    monkeypatch.setattr(module, "gradient_figures", lambda *frames: [])
    monkeypatch.setattr(contests, "all_figures", lambda contest: [])


def printed(call: Callable[[Path, Console], object], root: Path, width: int = 80) -> str:
    """What a terminal shows."""
    stream = io.StringIO()
    call(root, Console(file=stream, width=width))
    return stream.getvalue()


def test_a_directory_of_profiles_alone_gets_tables_figures_and_page(tmp_path: Path) -> None:
    text = printed(write_report, fake_gradients.write(tmp_path))
    assert all((tmp_path / name).stat().st_size > 100 for name in TABLES)
    for name in ("plane", "steps", "cosine"):
        assert (tmp_path / f"report/gradients_{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"report/gradients_{name}.svg").read_text()
    page = (tmp_path / "report/report.html").read_text()
    assert "Gradient profile" in page and page.count('class="drawing') == 3
    assert "python -m bench gradients --seed 0" in page and "3 gradient profiles" in page
    assert "| truncated_bp" in (tmp_path / "report/gradients.md").read_text()
    assert "truncated_bp" in text and "report:" in text
    assert not (tmp_path / "report/summary.csv").exists()


def test_a_directory_with_cells_and_profiles_shows_both(tmp_path: Path, no_figures: None) -> None:
    fake_gradients.write(fake.write(tmp_path / "r", ["rlr"], pictures=False))
    text = printed(write_report, tmp_path / "r")
    page = (tmp_path / "r/report/report.html").read_text()
    assert "Held-out reward" in page and "Gradient profile" in page
    assert "Held-out reward" in text and "truncated_bp" in text
    assert (tmp_path / "r/report/summary.csv").exists() and (tmp_path / "r/gradients.csv").exists()


def test_a_directory_with_cells_alone_has_no_section_on_gradients(report: tuple[Path, str]) -> None:
    assert "Gradient profile" not in report[0].read_text()
    assert not (report[0].parent / "gradients.md").exists()


def test_the_same_profiles_give_the_same_bytes(tmp_path: Path, no_figures: None) -> None:
    fake_gradients.write(tmp_path)
    files = [tmp_path / name for name in TABLES] + [tmp_path / "report/gradients.md"]
    printed(write_report, tmp_path)
    before = [file.read_bytes() for file in files]
    printed(write_report, tmp_path)
    assert [file.read_bytes() for file in files] == before


def test_every_place_and_seed_has_a_table_and_figures_of_its_own(tmp_path: Path) -> None:
    fakes = {name: FAKES[name] for name in ("full_bp", "truncated_bp")}
    fake_gradients.write(tmp_path, fakes, places=[("init", 0), ("init", 1), ("/somewhere/rlr-s0/lora", 0)])
    printed(write_report, tmp_path)
    names = {path.stem for path in (tmp_path / "report").glob("gradients_plane*.svg")}
    assert names == {"gradients_plane-init-s0", "gradients_plane-init-s1", "gradients_plane-rlr_s0-s0"}
    page = (tmp_path / "report/report.html").read_text()
    assert len(re.findall(r"<h3>tiny, clip, batch 8, at ", page)) == 3
    assert set(pd.read_csv(tmp_path / "gradients_steps.csv")["seed"]) == {0, 1}


def test_profiles_that_are_not_done_are_listed_with_the_reason(tmp_path: Path, no_figures: None) -> None:
    fake_gradients.write(tmp_path, states={"rlr": WorkState.FAILED})
    text = printed(write_report, tmp_path)
    page = (tmp_path / "report/report.html").read_text()
    assert "failed after 96 draws: out of memory" in text
    assert re.search(r"rlr-tiny-[^<]*failed after 96 draws\. out of memory", page)


def test_a_damaged_profile_is_told_and_hides_no_other(tmp_path: Path, no_figures: None) -> None:
    fake_gradients.write(tmp_path)
    damaged = ProbeDir(tmp_path / "gradients" / probe_id(fake_gradients.config("rlr", FAKES["rlr"])))
    for file in (damaged.path / "checkpoint").iterdir():
        file.write_bytes(b"nothing")
    text = printed(write_report, tmp_path)
    assert "unreadable" in text and "all checkpoints are damaged" in text
    assert len(pd.read_csv(tmp_path / "gradients.csv")) == 2


def test_profiles_without_a_draw_are_one_clear_error(tmp_path: Path) -> None:
    probe = ProbeDir(tmp_path / "gradients" / "rlr-tiny")
    probe.write_config(fake_gradients.config("rlr", FAKES["rlr"]))
    with pytest.raises(BenchError, match="no gradient profile can be read yet"):
        printed(write_report, tmp_path)
    assert not (tmp_path / "report").exists()


def test_two_settings_of_a_method_are_labelled_with_what_differs(tmp_path: Path) -> None:
    fake_gradients.write(tmp_path, {"full_bp": FAKES["full_bp"]})
    for h in (1, 2):
        found = fake_gradients.config("rlr", FAKES["rlr"], h=h)
        probe = ProbeDir(tmp_path / "gradients" / probe_id(found))
        probe.write_config(found)
        probe.save(fake_gradients.moments(FAKES["rlr"], 40, 0), {})
    assert {row.label for row in rows(tmp_path)} == {"full_bp", "rlr (h=1)", "rlr (h=2)"}


def test_intervals_of_a_table_hold_together(tmp_path: Path) -> None:
    fake_gradients.write(tmp_path, places=[("init", 0), ("init", 1)])
    table = rows(tmp_path)
    assert len(table) == 6
    assert {row.level for row in table} == {1 - (1 - LEVEL) / 3}


def test_parts_and_curves_refer_to_the_deployed_samplers_gradient(tmp_path: Path) -> None:
    table = rows(fake_gradients.write(tmp_path))
    reference = next(row for row in table if row.config.deployed)
    assert all(row.unit == reference.own.norm for row in table)
    terms = parts(table, by_step=False).set_index(["method", "term"])
    assert terms.loc[("rlr", "ho"), "variance"] > 100 * terms.loc[("truncated_bp", "fo"), "variance"]
    cosine = curves(table)
    biased = cosine[cosine["method"] == "truncated_bp"]
    assert list(biased["measured"]) == [n <= 96 * 8 for n in biased["samples"]]


def test_a_method_that_breaks_its_promise_is_told(tmp_path: Path, no_figures: None) -> None:
    liar = Fake(scale=0.3, noise=0.05, biased=False)
    fake_gradients.write(tmp_path, {"full_bp": FAKES["full_bp"], "liar": liar, "rlr": FAKES["rlr"]})
    texts = {row.label: show.cells(row) for row in rows(tmp_path)}
    assert texts["liar"][show.HEADERS.index("verdict")] == "biased, declared unbiased"
    assert texts["full_bp"][show.HEADERS.index("verdict")] == "unbiased"
    assert re.fullmatch(r"96 of (\d.*|\?)", texts["rlr"][show.HEADERS.index("draws")])


@pytest.mark.parametrize("width", [80, 150])
def test_the_terminal_table_keeps_to_its_width(tmp_path: Path, no_figures: None, width: int) -> None:
    text = printed(write_report, fake_gradients.write(tmp_path), width)
    lines = [line for line in text.splitlines() if not line.startswith("report:")]
    assert max(map(len, lines)) <= width
    one_table = re.search("verdict .* variance × s", text) is not None
    assert one_table == (width > 130)


def test_reports_of_cells_alone_import_no_torch(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["rlr"], pictures=False)
    code = (
        "import sys; from pathlib import Path; from rich.console import Console; "
        "from bench.report import contests, report; contests.all_figures = lambda contest: []; "
        f"report.write_report(Path({str(root)!r}), Console()); sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
    )
