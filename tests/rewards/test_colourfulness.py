import numpy as np
import pytest
import torch

from bench.base.errors import BenchError
from rewards.colourfulness import ColourfulnessConfig, ColourfulnessReward, colourfulness

REWARD = ColourfulnessReward(ColourfulnessConfig(), torch.device("cpu"))


def formula(image: np.ndarray) -> float:
    """Hasler & Süsstrunk's M^(3) of [3, H, W] in 0 … 255, as the paper writes it."""
    r, g, b = image.astype(np.float64)
    rg, yb = r - g, 0.5 * (r + g) - b
    sigma = np.sqrt(rg.std() ** 2 + yb.std() ** 2)
    return float(sigma + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2))


def random_media(batch: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(batch, 3, 9, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_it_is_the_papers_formula():
    media = random_media()
    expected = [formula(255 * image.numpy()) for image in media]
    assert REWARD.score(media, [""] * 4).tolist() == pytest.approx(expected, rel=1e-5)


def test_plain_red_has_no_spread_and_the_closed_form_mean():
    red = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 4, 4)
    expected = 0.3 * np.hypot(255, 127.5)  # rg = 255, yb = 127.5
    assert REWARD.score(red, [""]).item() == pytest.approx(expected, rel=1e-6)


def test_its_gradient_is_that_of_finite_differences():
    media = 255 * random_media(2, torch.float64)
    assert torch.autograd.gradcheck(colourfulness, media.requires_grad_())


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_grey_picture_scores_zero_with_a_finite_gradient(level):
    media = torch.full((2, 3, 8, 8), level, requires_grad=True)
    score = REWARD.score(media, ["", ""])
    score.sum().backward()
    assert score.tolist() == [0.0, 0.0]
    assert media.grad is not None and torch.isfinite(media.grad).all()


def test_half_precision_media_score_as_in_float32():
    media = random_media().half()
    assert torch.equal(REWARD.score(media, [""] * 4), REWARD.score(media.float(), [""] * 4))


def test_media_that_are_not_images_are_refused():
    with pytest.raises(BenchError, match=r"images \[B, 3, H, W\]"):
        REWARD.score(torch.zeros(2, 4), ["", ""])
