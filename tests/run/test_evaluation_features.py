"""Features of held-out pictures, and the diversity and distance that they give."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.run.evaluate import DIVERSITY, evaluate, noise, sample_images, summary
from bench.run.features import distance
from tests.run.test_evaluate import PROMPTS, Brightness, Embedding, Pictures, run


def test_diversity_is_the_mean_distance_within_a_prompt():
    chain = Pictures()
    rewards = {"brightness": Brightness(), "clip": Embedding()}
    evaluation = evaluate(chain, rewards, PROMPTS, seed=0, batch=4, images_per_prompt=3)
    rows = [r for r in evaluation.rows if r["reward"] == DIVERSITY]
    assert {r["features"] for r in rows} == {"clip"}
    for p, prompt in enumerate(PROMPTS):
        a, b, c = sample_images(chain, [prompt] * 3, noise(chain, 0, [(p, k) for k in range(3)])).flatten(1)
        cosine = [1 - torch.cosine_similarity(x, y, dim=0) for x, y in ((a, b), (a, c), (b, c))]
        scores = [r["score"] for r in rows if r["prompt"] == prompt]
        assert scores[0] == pytest.approx((cosine[0] + cosine[1]).item() / 2, abs=1e-6)
        assert sum(scores) / 3 == pytest.approx(sum(cosine).item() / 3, abs=1e-6)  # type: ignore[union-attr]


def test_without_features_diversity_is_measured_in_pixels():
    evaluation = run(Pictures())
    assert {r["features"] for r in evaluation.rows if r["reward"] == DIVERSITY} == {"pixels"}


def test_pixel_distance_of_black_and_white_is_one():
    class Extremes(Pictures):
        def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
            return torch.arange(len(x)).remainder(2)[:, None, None, None].expand(-1, 3, 2, 2).float()

    rows = run(Extremes(), per_prompt=2).rows
    assert [r["score"] for r in rows if r["reward"] == DIVERSITY] == pytest.approx([1.0] * 10)


def test_a_collapsed_model_has_no_diversity():
    class Collapsed(Pictures):
        def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
            return torch.full((len(x), 3, 2, 2), 0.25)

    assert summary(run(Collapsed()).rows)[DIVERSITY] == (0, 0)


def test_one_picture_per_prompt_has_features_and_no_diversity_figure():
    found = run(Pictures(), per_prompt=1)
    assert DIVERSITY not in summary(found.rows)
    assert found.features.name == "pixels"
    assert len(found.features.values) == len(PROMPTS)


def test_features_are_those_of_every_picture_in_the_order_of_the_rows():
    chain = Pictures()
    rewards = {"brightness": Brightness(), "clip": Embedding()}
    name, values = evaluate(chain, rewards, PROMPTS, seed=0, batch=4, images_per_prompt=3).features
    pictures = [(p, k) for p in range(len(PROMPTS)) for k in range(3)]
    media = sample_images(chain, [PROMPTS[p] for p, _ in pictures], noise(chain, 0, pictures))
    assert name == "clip" and values.dtype == np.float32
    assert values == pytest.approx(Embedding().image_features(media).detach().numpy(), abs=1e-6)


def test_distance_is_one_minus_the_cosine_and_of_pixels_the_root_mean_square_difference():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 12)).astype(np.float32)
    cosine = torch.cosine_similarity(torch.tensor(a).double(), torch.tensor(b).double(), dim=1)
    assert distance(a, b, "clip") == pytest.approx((1 - cosine).numpy(), rel=1e-9)
    assert distance(a, 3 * a, "clip") == pytest.approx(np.zeros(4), abs=1e-12)
    assert distance(a, -a, "clip") == pytest.approx(np.full(4, 2.0))
    black, white = np.zeros((1, 12)), np.full((1, 12), 1 / math.sqrt(12))
    assert distance(black, white, "pixels") == pytest.approx([1.0])
    for name in ("clip", "pixels"):
        assert distance(a, a, name).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2), r"'x' returned image features \[2\] for 2 images, not \[B, D\]"),
        (torch.tensor([[0.0], [math.inf]]), "image features of 'x' are not finite on a picture of 'bb'"),
    ],
)
def test_features_that_are_misshapen_or_not_finite_are_an_error_that_names_the_reward(value, message):
    class Faulty(Brightness):
        def image_features(self, media: Tensor) -> Tensor:
            return value

    with pytest.raises(BenchError, match=message):
        evaluate(Pictures(), {"x": Faulty()}, PROMPTS[:2], seed=0, batch=2, images_per_prompt=1)
