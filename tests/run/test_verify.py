"""A damaged file of a results directory costs one cell, is listed, and can be repaired."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.run import launch
from bench.run.slurm.status import standings
from bench.run.store import CellDir, ResultsDir, WorkState
from tests.support.running import cell, here, numbers, plan_dots, train_dots

pytestmark = pytest.mark.silent
SETTINGS = ("train.eval_every=2", "train.checkpoint_every=2", "eval.samples=1")


@pytest.fixture
def done(tmp_path: Path, plugin: None) -> Path:
    """A base cell and a trained one, four steps long, evaluated after two and after four."""
    train_dots(tmp_path / "out", *SETTINGS, steps=4)
    return tmp_path / "out"


def cut(file: Path, left: int = -9) -> None:
    file.write_bytes(file.read_bytes()[:left])


def without_last_line(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def spoilt_line(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    lines[1] = '{"st\n'
    file.write_text("".join(lines))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def foreign(file: Path) -> None:
    file.write_text('{"schema_version": 99, "state": "sleeping"}')


def picture(file: Path) -> None:
    file.write_text("no picture")


def truncated_tensors(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(save({"a": torch.ones(3)})[:-4])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("status.json", emptied),
    ("status.json", foreign),
    ("eval.jsonl", cut),
    ("eval.jsonl", without_last_line),
    ("eval.jsonl", spoilt_line),
    ("metrics.jsonl", cut),
    ("metrics.jsonl", spoilt_line),
    ("metrics.jsonl", emptied),
    ("samples/000004/00.png", picture),
    ("samples/000002/00.png", picture),
    ("features/000004.npz", picture),
    ("features/000004.npz", flipped),
    ("features/000004.npz", Path.unlink),
    ("features/000002.npz", emptied),
    ("lora/weights.safetensors", truncated_tensors),
    ("latents/000000-00.safetensors", truncated_tensors),
    ("checkpoint/*.pt", cut),
    ("config.yaml", lambda file: file.write_text("training: [\n")),
    ("env.json", emptied),
    ("claim.json", lambda file: file.write_text("{}")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spoil"), DAMAGE)
def test_damaged_file_is_listed_and_a_repaired_cell_ends_in_the_same_numbers(
    name: str, spoil: Callable[[Path], None], done: Path
) -> None:
    trained = cell(done, "push")
    before = numbers(trained)
    files = sorted(trained.path.glob(name)) or [trained.path / name]
    for file in files:
        spoil(file)
    found = here("verify", done)
    assert found.returncode == 1
    assert str(files[0]) in found.stdout and "Traceback" not in found.stderr
    assert here("verify", done, "--repair").returncode == 0
    assert here("verify", done).returncode == 0
    train_dots(done, *SETTINGS, steps=4)
    after = numbers(trained)
    if name.startswith("samples/000002"):
        assert after[:2] == before[:2]
    elif name.startswith("features/000002"):  # its parameters are gone: what is lost is this file alone
        assert after[:4] == before[:4]
        assert after[4] == {file: data for file, data in before[4].items() if file != "000002.npz"}
    else:
        assert after == before
    assert trained.status().state is WorkState.DONE


@pytest.mark.slow
def test_whole_directory_verifies_and_is_not_touched(done: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()}
    assert here("verify", done, "--repair").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_damaged_status_costs_one_cell_of_a_run_and_of_the_status_command(done: Path) -> None:
    trained = cell(done, "push")
    emptied(trained.path / "status.json")
    told = here("status", done)
    assert told.returncode == 0
    assert "damaged: empty" in " ".join(told.stdout.split()) and "--repair" in told.stdout
    assert {one.cell[:4]: one.state for one in standings(ResultsDir(done))} == {
        "base": "done",
        "push": "damaged",
    }
    assert (trained.path / "status.json").read_bytes() == b""  # nobody writes over it


@pytest.mark.parametrize("name", ["status.json", "claim.json"])
def test_damaged_status_or_claim_leaves_the_other_cells_to_run(
    name: str, tmp_path: Path, plugin: None
) -> None:
    first, *others = plan_dots(tmp_path, seeds="0,1")
    (first.directory.path / name).write_text("{}")
    ready, busy = launch.prepare([first, *others], force=False)
    assert [work.id for work in ready] == [work.id for work in others]
    assert [outcome.work.id for outcome in busy] == [first.id]
    assert "damaged" in (busy[0].status.message or "")


def test_force_starts_a_cell_with_a_damaged_status_again(tmp_path: Path, plugin: None) -> None:
    first, *_ = plan_dots(tmp_path)
    emptied(first.directory.path / "status.json")
    ready, _ = launch.prepare([first], force=True)
    assert [work.id for work in ready] == [first.id]
    assert first.directory.status().state is WorkState.PENDING


def test_damaged_status_is_never_written_over(tmp_path: Path) -> None:
    foreign(tmp_path / "status.json")
    with pytest.raises(BenchError, match="no status of schema version 1"):
        CellDir(tmp_path).write_status(WorkState.RUNNING)


@pytest.mark.slow
def test_features_of_the_base_model_that_are_gone_are_made_again(done: Path) -> None:
    base = cell(done, "base")
    before = numbers(base)
    (base.path / "features" / "000000.npz").unlink()
    assert "features/000000.npz: missing" in here("verify", done).stdout
    assert here("verify", done, "--repair").returncode == 0
    train_dots(done, *SETTINGS, steps=4)
    assert numbers(base) == before


@pytest.mark.slow
def test_cells_of_before_features_were_kept_are_whole(done: Path) -> None:
    for trained in (cell(done, "push"), cell(done, "base")):
        shutil.rmtree(trained.features)
    assert here("verify", done).returncode == 0
    train_dots(done, *SETTINGS, steps=6)
    assert [file.name for file in cell(done, "push").features.iterdir()] == ["000006.npz"]
    assert here("verify", done).returncode == 0


@pytest.mark.slow
def test_torn_evaluation_is_made_again_when_a_cell_goes_on(done: Path) -> None:
    trained = cell(done, "push")
    rows = read_rows(trained.evaluations)
    cut(trained.evaluations)
    (trained.path / "status.json").unlink()
    train_dots(done, *SETTINGS, steps=4)
    assert read_rows(trained.evaluations) == rows


@pytest.mark.slow
def test_torn_evaluation_whose_parameters_are_gone_is_an_error_and_not_a_gap(done: Path) -> None:
    trained = cell(done, "push")
    rows = [row for row in read_rows(trained.evaluations) if row["step"] == 2]
    text = trained.evaluations.read_text().splitlines(keepends=True)
    trained.evaluations.write_text("".join(text[: len(rows) - 1] + text[len(rows) :]))
    train_dots(done, *SETTINGS, steps=6)
    assert trained.status().state is WorkState.FAILED
    assert "the evaluation at step 2 are missing" in (trained.status().message or "")


def test_directory_without_results_is_one_message(tmp_path: Path) -> None:
    told = here("verify", tmp_path)
    assert told.returncode == 2
    assert "neither cells nor gradient profiles" in told.stderr
