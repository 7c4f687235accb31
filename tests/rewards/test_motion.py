import numpy as np
import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.data.prompts.emoji_motion import MOTIONS
from rewards.motion import MotionConfig, MotionReward, similarity
from scripts.embedded.compose import compose
from scripts.embedded.placement import sample_clip

CPU = torch.device("cpu")


def pattern(seed: int) -> Tensor:
    """A disc of smooth coloured noise, premultiplied RGBA, [4, 64, 64]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 7, generator=rng)
    colours = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)[0]
    at = torch.linspace(-1, 1, 64)
    disc = ((at[:, None] ** 2 + at**2) < 0.8).float()
    return torch.cat([colours * disc, disc[None]])


def clips(words: str, count: int = 6) -> Tensor:
    """[count, 8, 3, 64, 64] in [0, 1]."""
    rng = np.random.default_rng(0)
    made = [
        compose(pattern(k).expand(8, -1, -1, -1), [int(rng.integers(10))] * 8, sample_clip(words, rng))
        for k in range(count)
    ]
    return torch.stack(made) / 2 + 0.5


def reward() -> MotionReward:
    return MotionReward(MotionConfig(), CPU)


@pytest.mark.parametrize("words", MOTIONS)
def test_every_clip_scores_best_on_the_motion_that_it_shows(words: str) -> None:
    media = clips(words)
    scores = torch.stack([reward().score(media, [f"a fox {other}"] * 6) for other in MOTIONS])
    assert scores.argmax(dim=0).tolist() == [list(MOTIONS).index(words)] * 6
    assert scores.max(dim=0).values.min() > 0.7


def test_a_film_shown_backwards_scores_the_opposite() -> None:
    media = clips("moving left")
    forward, back = (reward().score(m, ["it is moving left"] * 6) for m in (media, media.flip(1)))
    assert torch.allclose(forward, -back, atol=1e-4)


def test_a_picture_that_stands_still_scores_1_without_a_motion_in_its_prompt_and_0_with_one() -> None:
    media = clips("growing")[:, :1].expand(-1, 8, -1, -1, -1)
    assert reward().score(media, ["a fox"] * 6).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert reward().score(media, ["a fox growing"] * 6).tolist() == pytest.approx([0.0] * 6, abs=1e-5)


def test_measured_motions_are_those_of_the_transform() -> None:
    at = torch.linspace(-1, 1, 33)[1:-1]
    y, x = torch.meshgrid(at, at, indexing="ij")

    def blob(growth: float, turn: float, dx: float, dy: float) -> Tensor:
        u, v = (x - dx) / np.exp(growth), (y - dy) / np.exp(growth)
        u, v = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
        return torch.exp(-2 * u**2 - 30 * v**2)[None, None]

    for wanted in ((0.03, 0, 0, 0), (0, -0.03, 0, 0), (0, 0, 0.04, 0), (0, 0, 0, 0.05)):
        dx, dy, growth, turn = wanted
        found = similarity(
            blob(-growth / 2, -turn / 2, -dx / 2, -dy / 2), blob(growth / 2, turn / 2, dx / 2, dy / 2)
        )
        assert found[0].tolist() == pytest.approx(wanted, abs=0.01)


def test_the_gradient_agrees_with_finite_differences() -> None:
    media = torch.rand(2, 3, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    texts = ["a fox moving up", "a fox"]
    assert torch.autograd.gradcheck(
        lambda m: reward().score(m, texts), media.requires_grad_(), fast_mode=True
    )


def test_an_empty_video_has_a_finite_score_and_gradient() -> None:
    media = torch.full((1, 4, 3, 64, 64), 0.5, requires_grad=True)
    score = reward().score(media, ["a fox moving up"])
    (gradient,) = torch.autograd.grad(score.sum(), media)
    assert score.item() == 0 and bool(gradient.isfinite().all())


def test_pictures_and_single_frames_are_refused() -> None:
    with pytest.raises(BenchError, match="videos"):
        reward().score(torch.rand(1, 3, 64, 64), ["a"])
    with pytest.raises(BenchError, match="one frame"):
        reward().score(torch.rand(1, 1, 3, 64, 64), ["a"])
