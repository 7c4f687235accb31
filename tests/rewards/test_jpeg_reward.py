import io

import numpy as np
import pytest
import torch
from PIL import Image

from bench.base.errors import BenchError
from rewards.jpeg import JpegConfig, JpegReward

CPU = torch.device("cpu")


def pictures(batch: int = 3, size: int = 48) -> torch.Tensor:
    """Pictures on the 8-bit grid, from smooth to noisy."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, size).expand(batch, 3, size, size)
    noise = torch.rand(batch, 3, size, size, generator=generator)
    mix = torch.linspace(0, 1, batch)[:, None, None, None]
    return ((1 - mix) * ramp + mix * noise).mul(255).round() / 255


def kilobytes(image: torch.Tensor, quality: int) -> float:
    buffer = io.BytesIO()
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.tell() / 1000


@pytest.mark.parametrize("quality", [50, 95])
def test_compressibility_is_minus_pillows_file_size_in_kb(quality):
    media = pictures()
    score = JpegReward(JpegConfig(quality=quality), CPU).score(media, [""] * 3)
    assert score.tolist() == pytest.approx([-kilobytes(image, quality) for image in media])


def test_incompressibility_is_the_negative_of_compressibility():
    media = pictures()
    small = JpegReward(JpegConfig(), CPU).score(media, [""] * 3)
    large = JpegReward(JpegConfig(direction="incompressibility"), CPU).score(media, [""] * 3)
    assert torch.equal(small, -large)
    assert large[0] < large[1] < large[2]  # noise does not compress


def test_media_that_require_grad_are_scored_without_a_graph():
    score = JpegReward(JpegConfig(), CPU).score(pictures().requires_grad_(), [""] * 3)
    assert not score.requires_grad


def test_one_picture_that_is_nan_scores_nan_and_spares_the_others():
    media = pictures()
    media[1, 0, 0, 0] = float("nan")
    assert torch.isnan(JpegReward(JpegConfig(), CPU).score(media, [""] * 3)).tolist() == [False, True, False]


def test_media_that_are_not_images_are_refused():
    with pytest.raises(BenchError, match=r"images \[B, 3, H, W\]"):
        JpegReward(JpegConfig(), CPU).score(torch.zeros(2, 4), ["", ""])


@pytest.mark.parametrize("settings", [{"quality": 0}, {"quality": 101}, {"direction": "smaller"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError):
        JpegConfig(**settings)
