"""One report on several results directories."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.base.files import read_rows, write_rows
from bench.report import contests as module
from bench.report.load import load
from bench.report.report import write_report
from tests.report import fake, fake_gradients
from tests.support.running import here

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow, and have tests of their own."""
    monkeypatch.setattr(module, "all_figures", lambda contest: [])
    monkeypatch.setattr("bench.report.gradients.gradient_figures", lambda *_: [])


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Two seeds of a method in one directory, a third in one of another machine; the base model in both."""
    whole = fake.write(tmp_path / "all", ["vader"], (0, 1, 2), steps=10, pictures=False)
    one, other = tmp_path / "one", tmp_path / "other"
    for place, seeds, host, day in (
        (one, (0, 1), "node1", "2026-01-02"),
        (other, (2,), "node2", "2026-03-04"),
    ):
        for cell in whole.glob("cells/*"):
            if cell.name.startswith("base") or any(f"-s{seed}-" in cell.name for seed in seeds):
                copy = place / "cells" / cell.name
                shutil.copytree(cell, copy)
                env = json.loads((copy / "env.json").read_text())
                (copy / "env.json").write_text(json.dumps(env | {"host": host, "cpu": "EPYC"}))
                status = json.loads((copy / "status.json").read_text())
                (copy / "status.json").write_text(json.dumps(status | {"updated": f"{day}T05:06:07+00:00"}))
    return one, other


def written(out: Path, *places: Path) -> tuple[str, str]:
    """The page, and what was printed."""
    stream = io.StringIO()
    page = write_report(places[0], Console(file=stream, width=80), out, others=places[1:])
    return page.read_text(), " ".join(stream.getvalue().split())


def test_seeds_of_several_directories_are_one_group_and_the_base_model_counts_once(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    written(tmp_path / "out", *places)
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert list(table["method"]) == ["base", "vader"] and list(table["seeds"]) == [1, 3]
    written(tmp_path / "whole", tmp_path / "all")
    assert (tmp_path / "out" / "summary.csv").read_bytes() == (
        tmp_path / "whole" / "summary.csv"
    ).read_bytes()
    assert not any((place / "report").exists() for place in places)


def test_the_page_and_the_terminal_say_where_and_when_cells_were_run(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    page, text = written(tmp_path / "out", *places)
    environment = page.partition("Environment")[2]
    for place, host, day in zip(places, ("node1", "node2"), ("2026-01-02", "2026-03-04"), strict=True):
        assert f"{place}</td>" in environment and f"{host} (EPYC)" in environment and day in environment
        assert f"from {place}: " in text
    assert "<title>one + other" in page and "cannot be compared; forward equivalents can" in text
    page, text = written(tmp_path / "single", places[0])
    assert "results directory</th>" not in page and "from " + str(places[0]) not in text


def test_other_numbers_of_one_cell_are_named_with_what_to_do(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    log = next(places[1].glob("cells/base*/eval.jsonl"))
    rows = read_rows(log)
    rows[3]["score"] += 0.25
    write_rows(log, rows)
    _, text = written(tmp_path / "out", *places)
    assert (
        f"base-tiny-00000000 has other numbers in {places[1]} than in {places[0]} (eval.jsonl, line 4" in text
    )
    assert "name the other directory first" in text
    bases = [next(c for c in load(*order).cells if not c.training) for order in (places, places[::-1])]
    assert [base.path.parents[1] for base in bases] == list(places)


def test_an_unfinished_cell_gives_way_to_the_finished_one(places: tuple[Path, Path]) -> None:
    done = next(places[0].glob("cells/vader-*-s1-*"))
    half = places[1] / "cells" / done.name
    shutil.copytree(done, half)
    (half / "status.json").write_text('{"state": "running", "step": 5}')
    write_rows(half / "metrics.jsonl", read_rows(half / "metrics.jsonl")[:5])
    (half / "eval.jsonl").write_text("")
    for order in (places, places[::-1]):
        found = load(*order)
        assert all(cell.done for cell in found.cells) and found.notes == ()


def test_an_unreadable_cell_gives_way_to_the_readable_one(places: tuple[Path, Path]) -> None:
    log = next(places[0].glob("cells/base*/status.json"))
    log.write_text("")
    found = load(*places)
    assert all(cell.done for cell in found.cells)


def test_gradient_profiles_of_several_directories_are_one_table(tmp_path: Path) -> None:
    names = list(fake_gradients.FAKES)
    one, other = (
        fake_gradients.write(tmp_path / place, {name: fake_gradients.FAKES[name] for name in some})
        for place, some in (("a", names[:2]), ("b", names[1:]))
    )
    _, text = written(tmp_path / "out", one, other)
    assert len(pd.read_csv(tmp_path / "out" / "gradients.csv")) == len(names)
    assert "other numbers" not in text and not (one / "gradients.csv").exists()


def test_several_directories_ask_for_out_and_none_is_named_twice(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    done = here("report", *places)
    assert done.returncode == 2 and f"bench report {places[0]} {places[1]} --out DIRECTORY" in done.stderr
    with pytest.raises(BenchError, match="is named twice"):
        written(tmp_path / "out", places[0], places[0] / ".." / "one")
    done = here("report", *places, "--out", tmp_path / "out")
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").exists()
