"""Reading what a run leaves behind, whole or not."""

from pathlib import Path

import pytest
from PIL import ImageFile

from bench.base.errors import BenchError
from bench.report.load import UNREADABLE, CellResults, load
from tests.report import fake


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return fake.write(tmp_path / "small", ["rlr", "vader"], steps=20, pictures=False)


def cell(root: Path, method: str) -> CellResults:
    return next(c for c in load(root).cells if c.id.startswith(method))


def test_an_empty_directory_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no results here.*--out"):
        load(tmp_path)
    with pytest.raises(BenchError, match="no results here"):
        load(tmp_path / "nowhere")


def test_every_line_of_every_cell_is_read(small: Path) -> None:
    rlr = cell(small, "rlr")
    assert len(load(small).cells) == 3
    assert (rlr.method, rlr.status, rlr.eval_steps, len(rlr.metrics)) == ("rlr", "done", [10, 20], 20)
    assert len(rlr.scored("clip", 20)) == 2 * len(fake.PROMPTS)
    assert cell(small, "base").method == "base"


def test_a_torn_last_line_is_ignored_and_noted(small: Path) -> None:
    path = cell(small, "vader").path / "eval.jsonl"
    whole = len(cell(small, "vader").evals)
    with path.open("a") as stream:
        stream.write('{"step": 20, "prompt": "a ke')
    assert len(cell(small, "vader").evals) == whole
    assert load(small).notes == (
        f"{path.parent.name}/eval.jsonl: the last line is incomplete and was ignored.",
    )


def test_a_damaged_cell_is_named_and_the_others_are_read(small: Path) -> None:
    path = cell(small, "vader").path / "metrics.jsonl"
    path.write_text("not json\n" + path.read_text())
    damaged = cell(small, "vader")
    assert damaged.status == UNREADABLE
    assert "metrics.jsonl:1: damaged" in damaged.problem
    assert cell(small, "rlr").done


def test_a_cell_without_a_status_is_pending(small: Path) -> None:
    (cell(small, "rlr").path / "status.json").unlink()
    assert cell(small, "rlr").status == "pending"
    (small / "cells" / "zo-tiny-clip-s0-12345678").mkdir()
    assert cell(small, "zo").status == "pending"


def test_a_failed_cell_carries_the_last_line_of_its_traceback(tmp_path: Path) -> None:
    root = fake.write(tmp_path / "r", ["zo"], states={"zo": "failed"}, pictures=False)
    assert cell(root, "zo").problem == "RuntimeError: NaN reward at step 31"
    assert [c.method for c in load(root).unfinished()] == ["zo"]


@pytest.mark.silent
def test_damaged_status_env_and_request_cost_no_other_cell(small: Path) -> None:
    (cell(small, "vader").path / "status.json").write_bytes(b"")
    (cell(small, "rlr").path / "env.json").write_text("[]")
    (small / "experiment.yaml").write_text("methods: [\n")
    assert cell(small, "vader").status == "damaged"
    assert "verify RESULTS --repair" in cell(small, "vader").problem
    assert cell(small, "rlr").status == UNREADABLE
    assert cell(small, "base").done
    assert any(note.startswith("experiment.yaml was ignored") for note in load(small).notes)


@pytest.mark.silent
@pytest.mark.parametrize("lenient", [False, True])  # as VBench makes Pillow when it is imported
def test_sample_that_is_no_picture_is_left_out_and_noted(
    lenient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    root = fake.write(tmp_path / "r", ["rlr"], steps=10)
    torn = cell(root, "rlr").path / "samples" / "000010" / "1.png"
    torn.write_bytes(torn.read_bytes()[:-30])
    (torn.parent / "2.png").write_text("no picture")
    pictures = cell(root, "rlr").pictures
    assert (pictures.step, sorted(pictures.files)) == (10, [0, 3, 4, 5, 6, 7])
    assert sum("was left out: no picture" in note for note in load(root).notes) == 2
