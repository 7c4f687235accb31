import random
import sys
import tomllib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from bench.base.errors import BenchError
from bench.data import packages
from bench.data.prompts import load
from bench.engine.reward import scores
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from rewards.ocr import OcrConfig, OcrReward, distance, share, wanted_text
from rewards.weighted_sum import WeightedConfig

CPU = torch.device("cpu")
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
reads = pytest.mark.skipif(bool(packages.absent(OcrConfig)), reason="pip install -e '.[ocr]'")


def picture(text: str, side: int = 256, paper: str = "linen") -> Image.Image:
    """A text in the middle of a picture, in letters an eighth of its height."""
    image = Image.new("RGB", (side, side), paper)
    font = ImageFont.truetype(FONT, side // 8)
    ImageDraw.Draw(image).multiline_text((side / 2, side / 2), text, fill="navy", font=font, anchor="mm")
    return image


def media(*images: Image.Image) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images])


def says(text: str) -> str:
    return f'a sign that says "{text}"'


@pytest.fixture(scope="module")
def reward() -> OcrReward:
    return OcrReward(OcrConfig(), CPU)


@reads
@pytest.mark.slow
@pytest.mark.parametrize("text", ["OPEN", "Hello World", "50% off!", "ROOM 38", "Stay\nCurious"])
@pytest.mark.parametrize("side", [64, 256, 512])
def test_a_text_that_is_drawn_is_read(reward, text, side):
    score = reward.score(media(picture(text, side)), [says(text.replace("\n", " "))])
    assert score.shape == (1,) and score.item() >= 0.95


@reads
@pytest.mark.slow
def test_misspelt_and_partly_covered_text_counts_by_its_share_and_none_is_0(reward):
    covered = picture("HELLO WORLD")
    ImageDraw.Draw(covered).rectangle((128, 0, 256, 256), fill="linen")
    images = media(picture("HELLO WORLB"), covered, picture(""), picture("MUSIC"))
    score = reward.score(images, [says("HELLO WORLD")] * 4)
    assert score[0].item() == pytest.approx(0.9)  # one of ten letters
    assert score[1].item() == pytest.approx(0.5)  # HELLO
    assert score[2].item() == 0
    assert 0 <= score[3].item() <= 0.2


@reads
@pytest.mark.slow
def test_other_text_in_the_picture_does_not_count_against_it(reward):
    assert reward.score(media(picture("GRAND\nOPENING\nTODAY")), [says("opening")]).item() == 1


@reads
@pytest.mark.slow
def test_the_networks_get_blue_green_and_red_in_the_order_that_they_were_trained_on(reward, monkeypatch):
    seen, read = [], reward.reader
    monkeypatch.setattr(reward, "reader", lambda image: seen.append(read(image)) or seen[-1])
    assert reward.text(media(picture("OPEN", paper="#c8641e"))[0]) == "OPEN"
    assert seen[0].img[0, 0].tolist() == [0x1E, 0x64, 0xC8]


@reads
@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_the_time_or_the_number_of_threads(reward):
    texts = ["OPEN", "WET PAINT", "1 EURO"]
    generator = torch.Generator().manual_seed(0)
    images = media(*(picture(text, 128) for text in texts))
    images = (images + 0.4 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    prompts = [says(text) for text in texts]
    together = reward.score(images, prompts)
    alone = [reward.score(images[i : i + 1], prompts[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))  # 1 and 2, or 2 and 1
    try:
        other = OcrReward(OcrConfig(), CPU)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, other.score(images, prompts))


@reads
@pytest.mark.slow
def test_a_video_gets_the_mean_over_its_frames(reward):
    frames = media(picture("OPEN"), picture(""))
    assert scores(reward, frames[None], [says("OPEN")]).tolist() == [0.5]


@reads
@pytest.mark.slow
def test_one_picture_that_is_nan_scores_nan_and_spares_the_others_and_there_is_no_graph(reward):
    images = media(picture("OPEN"), picture("OPEN")).requires_grad_()
    broken = images + torch.tensor([0.0, float("nan")])[:, None, None, None]
    score = reward.score(broken, [says("OPEN")] * 2)
    assert score[0].item() == 1 and torch.isnan(score[1])
    assert not score.requires_grad


@reads
def test_pictures_and_prompts_that_do_not_fit_are_refused(reward):
    with pytest.raises(BenchError, match="expected images"):
        reward.score(torch.zeros(2, 4), [says("A")] * 2)
    with pytest.raises(BenchError, match="1 images but 2 prompts"):
        reward.score(media(picture("A")), [says("A")] * 2)
    with pytest.raises(BenchError, match="the prompt 'a cat' has no text in double quotes"):
        reward.score(media(picture("A")), ["a cat"])


@reads
def test_a_rapidocr_with_other_networks_is_refused(monkeypatch):
    monkeypatch.setattr("rewards.ocr.MODELS", {"Det": "PP-OCRv9_det.onnx"})
    with pytest.raises(BenchError, match=r"PP-OCRv9_det.onnx is not there[\s\S]*pip install 'rapidocr"):
        OcrReward(OcrConfig(), CPU)


@pytest.mark.parametrize("lacking", ["rapidocr", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(BenchError, match=r"reward ocr: needs the packages[\s\S]*\n  pip install 'rapidocr"):
        OcrReward(OcrConfig(), CPU)


@pytest.mark.parametrize(
    ("read", "wanted", "expected"),
    [
        ("open", "OPEN", 1),
        ("HELLOWORLD", "Hello World", 1),
        ("WEAREOPENTODAY", "open", 1),
        ("OPN", "OPEN", 3 / 4),
        ("OPENN", "OPENED", 4 / 6),
        ("", "OPEN", 0),
        ("ALTOGETHER DIFFERENT AND LONG", "OPEN", 0),
    ],
)
def test_the_share_is_flow_grpos(read, wanted, expected):
    assert share(read, wanted) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.text("ab ", max_size=8), st.text("ab ", max_size=8), st.text("ab ", max_size=8))
def test_the_distance_is_a_metric_that_one_edit_changes_by_1_at_most(a, b, c):
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a) <= max(len(a), len(b))
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    place = random.Random(a + b).randint(0, len(a))
    assert distance(a, a[:place] + "c" + a[place:]) == 1
    assert abs(distance(a[:place] + "c" + a[place:], b) - distance(a, b)) <= 1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (says("OPEN"), "OPEN"),
        ('"Stop" and "Go"', "Stop"),
        ("a sign, “Don't walk”", "Don't walk"),
        ("ein Schild: „Offen“", "Offen"),
    ],
)
def test_the_first_quoted_text_is_wanted(prompt, expected):
    assert wanted_text(prompt) == expected


@pytest.mark.parametrize("prompt", ["a cat", 'a 12" pipe', 'a sign that says " "', "a sign that says 'OPEN'"])
def test_a_prompt_without_a_quoted_text_is_refused(prompt):
    with pytest.raises(BenchError, match=r"has no text in double quotes[\s\S]*--prompts signs"):
        wanted_text(prompt)


@pytest.mark.parametrize("reward", ["ocr", "ocr:1,jpeg:0.1"])
def test_prompts_are_looked_at_before_anything_runs(reward):
    with pytest.raises(BenchError, match=r"reward ocr: the prompt 'an? .*' has no text in double quotes"):
        resolve_all(build(Options(methods="ddpo", reward=reward)).combinations, fetch=False)
    assert resolve_all(
        build(Options(methods="ddpo", reward=reward, prompts="signs")).combinations, fetch=False
    )


def test_a_reward_that_is_only_evaluated_has_its_prompts_looked_at_too():
    options = Options(methods="ddpo", settings=["eval.rewards=[ocr]"])
    with pytest.raises(BenchError, match="reward ocr: the prompt"):
        resolve_all(build(options).combinations, fetch=False)


def test_a_sum_looks_at_the_prompts_of_its_terms():
    config = WeightedConfig.model_validate({"terms": [{"name": "jpeg"}, {"name": "ocr"}]})
    config.check_prompts([says("OPEN")])
    with pytest.raises(BenchError, match="'a cat'"):
        config.check_prompts([says("OPEN"), "a cat"])


def test_every_prompt_of_the_set_asks_for_a_text_and_no_text_is_in_both_splits():
    prompts = load("signs")
    trained, held_out = ({wanted_text(p) for p in split} for split in (prompts.train, prompts.eval))
    assert not {text.casefold() for text in trained} & {text.casefold() for text in held_out}
    assert len(prompts.train) == 12 * len(trained) >= 400 and len(prompts.eval) == 12 * len(held_out) >= 150
    assert len({wanted_text(p) for p in prompts.eval[:30]}) >= 10  # a prefix is a fair sample


def test_the_command_that_installs_the_packages_is_that_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    extra = project["project"]["optional-dependencies"]["ocr"]
    assert OcrConfig.install == "pip install " + " ".join(f"'{requirement}'" for requirement in extra)


def test_a_run_without_the_packages_is_refused_with_their_command(monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda name: name not in OcrConfig.packages)
    combinations = build(Options(methods="ddpo", reward="ocr", prompts="signs")).combinations
    with pytest.raises(BenchError, match="reward ocr needs rapidocr, onnxruntime") as caught:
        resolve_all(combinations, fetch=True)
    assert OcrConfig.install in str(caught.value)
    assert "make scorers" not in str(caught.value)
