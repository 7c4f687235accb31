"""The resize as two matrix products: torch's antialiased interpolation, forward and backward.

Compared in float64, since torch's own in float32 is off by 1e-5 (its weights are), fifty times as much.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import interpolate, pad

from rewards.shared.clip_image import fit_square, resize

SIZES = [((64, 64), (224, 224)), ((300, 200), (224, 149)), ((32, 48), (16, 24)), ((20, 20), (20, 31))]


def picture(size: tuple[int, int]) -> Tensor:
    """Noise, which overshoots in a resize."""
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()


def both(mine: Tensor, x: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """Values and gradients in a random direction agree with those of float64."""
    torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=5e-7)
    direction = torch.randn(mine.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad((mine * direction).sum(), x)
    (expected,) = torch.autograd.grad((theirs * direction).sum(), exact)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "to"), SIZES)
def test_one_pass_after_the_other_is_torchs(mode: str, size: tuple[int, int], to: tuple[int, int]) -> None:
    x = picture(size)
    theirs = exact = x.detach().double().requires_grad_()
    for step in ((size[0], to[1]), to):
        if theirs.shape[-2:] != step:
            resized = interpolate(theirs, size=step, mode=mode, antialias=True, align_corners=False)
            theirs = resized.clamp(0, 1)
    both(resize(x, to, mode), x, theirs, exact)


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (100, 333)])
def test_a_picture_fitted_into_a_square_is_torchs_of_both_sides_at_once(size: tuple[int, int]) -> None:
    x, side = picture(size), 224
    exact = x.detach().double().requires_grad_()
    height, width = (round(length * side / max(size)) for length in size)
    theirs = interpolate(exact, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    top, left = (side - height) // 2, (side - width) // 2
    theirs = pad(theirs, (left, side - width - left, top, side - height - top))
    both(fit_square(x, side), x, theirs, exact)


def test_what_is_float64_stays_float64() -> None:
    x = picture((24, 24)).double()
    theirs = interpolate(x, size=(24, 17), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    torch.testing.assert_close(resize(x, (24, 17), "bicubic"), theirs, rtol=0, atol=1e-13)


def test_simulated_memory_leaves_no_stand_in_for_the_next_picture() -> None:
    with FakeTensorMode():
        assert fit_square(torch.rand(1, 3, 26, 38), 33).shape == (1, 3, 33, 33)
    assert type(fit_square(torch.rand(1, 3, 26, 38), 33)) is Tensor
