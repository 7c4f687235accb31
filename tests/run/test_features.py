"""What held-out pictures look like is kept at every evaluation, and is equal for equal pictures."""

from pathlib import Path

import numpy as np
import pytest

from bench.base.errors import Damaged
from bench.base.files import read_rows
from bench.report import distances
from bench.report.load import BASE, load
from bench.run import features
from bench.run.features import Features
from bench.run.process import Exit
from bench.run.store import CellDir
from tests.support.running import cell, here, train_dots


def kept(directory: CellDir) -> dict[int, Features]:
    return {step: features.read(file) for step, file in features.files_by_step(directory.features).items()}


def test_what_is_written_is_read_and_the_same_features_are_the_same_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for folder in (tmp_path / "a", tmp_path / "b"):
        features.write(folder, 12, Features("clip", values))
    first, second = (features.file_of(tmp_path / name, 12) for name in "ab")
    assert first.name == "000012.npz" and first.read_bytes() == second.read_bytes()
    name, read = features.read(first)
    assert name == "clip" and read.dtype == np.float32 and np.array_equal(read, values)


@pytest.mark.silent
@pytest.mark.parametrize(
    "content",
    [
        {"values": np.ones((2, 3))},
        {"name": np.array("clip")},
        {"name": np.array("clip"), "values": np.ones(3)},
    ],
)
def test_a_file_that_lacks_something_is_damaged(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "000000.npz", **content)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Damaged, match=r"000000\.npz: damaged: .*features"):
        features.read(tmp_path / "000000.npz")


def test_files_of_later_steps_are_cut_and_others_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        features.write(tmp_path, step, Features("clip", np.ones((1, 1))))
    (tmp_path / "notes.npz").touch()
    features.cut(tmp_path, 4)
    assert list(features.files_by_step(tmp_path)) == [2, 4]
    assert (tmp_path / "notes.npz").exists()


def test_every_evaluation_keeps_the_features_of_all_its_pictures(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path, "train.eval_every=2", "eval.images_per_prompt=1", steps=4)
    base, trained = kept(cell(tmp_path, "base")), kept(cell(tmp_path, "push"))
    assert list(base) == [0] and list(trained) == [2, 4]
    rows = [row for row in read_rows(cell(tmp_path, "push").evaluations) if row["step"] == 4]
    for name, values in (base[0], trained[2], trained[4]):
        assert name == "pixels" and values.shape == (len(rows), 3 * 8 * 8)
    assert not np.array_equal(trained[2].values, trained[4].values)


def test_a_cell_that_goes_on_forgets_features_that_lie_after_its_checkpoint(
    tmp_path: Path, plugin: None
) -> None:
    train_dots(tmp_path, "train.eval_every=2", steps=4)
    trained = cell(tmp_path, "push")
    before = kept(trained)
    features.write(trained.features, 5, before[4])
    assert train_dots(tmp_path, "train.eval_every=2", steps=6) == [Exit.DONE]
    after = kept(trained)
    assert list(after) == [2, 4, 6]
    assert all(np.array_equal(after[step].values, before[step].values) for step in before)


@pytest.mark.slow
def test_pictures_of_a_lora_that_has_not_moved_have_no_distance_and_those_of_a_trained_one_have(
    tmp_path: Path,
) -> None:
    few = ("eval.prompts=3", "train.samples_per_prompt=1", "train.prompts_per_step=2")
    how = ("--methods", "alignprop", "--seeds", "1", "--steps", "1", "--no-report", "--in-process")
    for lr, apart in ("1e-30", False), ("1e-3", True):
        out = tmp_path / lr
        settings = [word for setting in (*few, f"train.lr={lr}") for word in ("--set", setting)]
        done = here("run", *how, "--out", out, *settings)
        assert done.returncode == 0, done.stderr
        trained, base = sorted(load(out).cells, key=lambda one: one.method == BASE)
        found = distances(trained, base, 1)
        assert set(found["features"]) == {"clip"} and len(found) == len(trained.pictures_at(1))
        assert [score > 0 for score in found["score"]] == [apart] * len(found)
