import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.experiment.choices import load_reward
from bench.experiment.ingredients import Ingredient
from bench.experiment.settings import Choice
from bench.run import score
from bench.run.sample import draw, write
from tests.support.running import bench, cell, here, train_dots

CPU = torch.device("cpu")


def console() -> Console:
    return Console(record=True, width=80)


def pictures(directory: Path, sizes: list[int]) -> Path:
    random = np.random.default_rng(0)
    directory.mkdir()
    for n, size in enumerate(sizes):
        pixels = random.integers(0, 256, (size, size + 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"a cat-{n}.png")
    return directory


def key(row: dict[str, object]) -> tuple[object, ...]:
    return row["prompt"], row["image"], row["reward"]


def test_pictures_of_any_size_are_scored_as_the_reward_scores_them(tmp_path: Path) -> None:
    directory, out = pictures(tmp_path / "x", [16, 16, 24, 16]), tmp_path / "scores.csv"
    shown = console()
    score.score_images(shown, directory, None, score.ScoringRequest("colourfulness", batch=2, out=out))
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [f"a cat-{n}.png" for n in range(4)]
    reward = load_reward(Choice(name="colourfulness", config={}), CPU)
    for row in rows:
        pixels = torch.tensor(np.asarray(Image.open(directory / row["file"]))).permute(2, 0, 1) / 255
        assert float(row["score"]) == pytest.approx(float(reward.score(pixels[None], ["a cat"])[0]), rel=1e-5)
    assert "colourfulness" in shown.export_text()


@pytest.mark.slow
def test_what_sample_drew_can_be_scored_as_it_lies(tmp_path: Path) -> None:
    prompt = "a cat & [red] hat"
    write(draw(prompt, "tiny", None, 1, 0, ("model.steps=1",)), prompt, tmp_path / "x")
    out = tmp_path / "scores.jsonl"
    score.score_images(console(), tmp_path / "x", None, score.ScoringRequest("jpeg", out=out))
    assert [(row["file"], row["prompt"]) for row in read_rows(out)] == [("00.png", "a cat & [red] hat")]


def test_all_leaves_out_what_is_not_here_and_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingredient, "complete", property(lambda one: one.name == "jpeg"))
    shown = console()
    score.score_images(shown, pictures(tmp_path / "x", [16]), None, score.ScoringRequest("all"))
    text = shown.export_text()
    assert "left out: clip: not here; python -m bench fetch --reward clip" in text
    assert "jpeg" in text


def test_a_reward_that_cannot_score_the_prompts_is_left_out_or_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingredient, "complete", property(lambda one: one.name in ("jpeg", "ocr")))
    monkeypatch.setattr(score, "absent", lambda config: ())
    directory, shown = pictures(tmp_path / "x", [16]), console()
    score.score_images(shown, directory, None, score.ScoringRequest("all"))
    assert "left out: ocr: the prompt 'a cat' has no text in double quotes" in shown.export_text()
    with pytest.raises(BenchError, match="reward ocr: the prompt 'a cat'"):
        score.score_images(console(), directory, None, score.ScoringRequest("jpeg,ocr"))


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    directory = pictures(tmp_path / "x", [16])
    (directory / "a cat-9.png").write_text("not a picture")
    with pytest.raises(BenchError, match=r"a cat-9\.png: cannot be read as a picture"):
        score.score_images(console(), directory, None, score.ScoringRequest("jpeg"))


def test_a_table_has_a_known_ending_and_settings_a_meaning(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"must end in \.csv or \.jsonl"):
        score.ScoringRequest("jpeg", out=tmp_path / "x.xlsx")
    directory = pictures(tmp_path / "x", [16])
    with pytest.raises(BenchError, match="only settings of jpeg"):
        score.score_images(console(), directory, None, score.ScoringRequest("jpeg", ("clip.chunk=2",)))


def test_a_cell_scored_again_repeats_its_run_and_other_rewards_go_beside_it(
    tmp_path: Path, plugin: None
) -> None:
    train_dots(tmp_path, methods="push", steps=3)
    trained = cell(tmp_path, "push")
    before = trained.evaluations.read_bytes()
    score.score_cells(console(), [trained.path], score.ScoringRequest("brightness"))
    score.score_cells(console(), [trained.path], score.ScoringRequest("jpeg"))
    again = read_rows(trained.path / "evaluations" / "brightness.jsonl")
    own = [row for row in read_rows(trained.evaluations) if row["step"] == 3]
    assert {key(r): r["score"] for r in again} == {key(r): r["score"] for r in own}
    assert {row["step"] for row in again} == {3}
    others = read_rows(trained.path / "evaluations" / "jpeg.jsonl")
    assert {row["reward"] for row in others} >= {"jpeg"}
    assert trained.evaluations.read_bytes() == before


@pytest.mark.slow
def test_what_is_no_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no config\.yaml there"):
        score.score_cells(console(), [tmp_path], score.ScoringRequest("jpeg"))
    done = bench("evaluate", "--images", tmp_path, "--cell", tmp_path)
    assert done.returncode == 2
    assert "either --images DIRECTORY, or --cell DIRECTORY" in done.stderr


@pytest.mark.slow
def test_a_trained_cell_of_the_embedded_model_is_scored_again_to_the_last_bit(tmp_path: Path) -> None:
    few = (
        "--set",
        "eval.prompts=3",
        "--set",
        "train.samples_per_prompt=1",
        "--set",
        "train.prompts_per_step=2",
    )
    how = ("--methods", "alignprop", "--steps", "2", "--no-report", "--in-process")
    done = here("run", *how, "--out", tmp_path, *few)
    assert done.returncode == 0, done.stderr
    for prefix in ("base", "alignprop"):
        directory = cell(tmp_path, prefix)
        names = ("clip", "colourfulness", "jpeg")
        done = here("evaluate", "--cell", directory.path, "--rewards", ",".join(names))
        assert done.returncode == 0, done.stderr
        again = read_rows(directory.path / "evaluations" / f"{'-'.join(names)}.jsonl")
        own = read_rows(directory.evaluations)
        assert {key(r): r["score"] for r in again} == {key(r): r["score"] for r in own}
        assert {row["reward"] for row in again} == {*names, "diversity"}
