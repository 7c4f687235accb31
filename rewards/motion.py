"""Whether a video moves as its prompt says: left, right, up, down, growing, shrinking, turning. No network.

Between two frames the picture is taken to move as a whole by a shift, a growth and a turn about its object:
a similarity. Its four numbers are the least-squares solution of brightness constancy, I_t + ∇I · u = 0 (Lucas
and Kanade 1981; for parametric motions Bergen et al. 1992, "Hierarchical model-based motion estimation"), on
pictures that are averaged down until a frame's motion is about a pixel. Plain backgrounds have no gradient,
and so no say. Differentiable in the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.prompts.emoji_motion import MOTIONS, REACH, TURN, motion_of
from bench.engine.reward import Media, Reward
from rewards.shared.checks import check_videos

RIDGE = 1e-2
"""Of the mean of the normal matrix' diagonal: what holds back motions that the pictures say little about."""
FLOOR = 1e-4
"""Of the same, absolutely: an empty picture does not move."""


class MotionConfig(Strict):
    """How motions are measured and weighed."""

    pixels: int = Field(default=16, ge=4, description="frames are averaged down to so many pixels per side")
    still: float = Field(
        default=0.25, gt=0, description="a motion of so many times the usual one counts half as none"
    )


@final
class MotionReward(Reward):
    """v · d / √(|v|² + still²): the cosine between what a video does and what its prompt says.

    v: the whole video's shift, growth and turn, each in units of the motions that the embedded video model
    was shown (`bench.data.prompts.emoji_motion`); d: the prompt's, a unit vector. A prompt without a motion
    asks for none: still / √(|v|² + still²).
    """

    name: ClassVar[str] = "motion"
    Config: ClassVar[type[Strict]] = MotionConfig
    differentiable: ClassVar[bool] = True
    media: Media = "video"
    scale: ClassVar[str] = "cosine of motion and prompt, in [-1, 1]"

    def __init__(self, config: MotionConfig, device: torch.device) -> None:
        """Nothing is loaded."""
        self.pixels, self.still, self.device = config.pixels, config.still, device

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores [B] of videos [B, F, 3, H, W] in [0, 1], of at least two frames."""
        check_videos(media, prompts, "motion")
        if media.shape[1] < 2:
            raise BenchError(
                "reward motion: one frame does not move, it needs two or more (vader: --set vader.frames=all)"
            )
        v = self.motion(media)
        length = (v.pow(2).sum(dim=1) + self.still**2).sqrt()
        asked = torch.tensor([_direction(prompt) for prompt in prompts], dtype=v.dtype, device=v.device)
        none = asked.abs().sum(dim=1) == 0
        along = (v * asked).sum(dim=1)
        return torch.where(none, self.still, along) / length

    def motion(self, media: torch.Tensor) -> torch.Tensor:
        """[B, 4] of videos [B, F, 3, H, W]: to the right, down, growth, turn counter-clockwise; in units."""
        x = media if media.dtype == torch.float64 else media.float()
        small = torch.nn.functional.adaptive_avg_pool2d(x.flatten(0, 1), self.pixels).unflatten(
            0, x.shape[:2]
        )
        p = similarity(small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1))
        units = torch.tensor([REACH, REACH, REACH, TURN], dtype=p.dtype, device=p.device)
        return p.unflatten(0, (len(x), -1)).sum(dim=1) / units


def similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[N, 4]: how pictures [N, C, H, W] moved from the first to the second.

    Shift to the right and down in half pictures, logarithm of growth, turn counter-clockwise in radians.
    """
    middle, change = (first + second) / 2, second - first
    dy, dx = torch.gradient(middle, dim=(-2, -1))
    height, width = middle.shape[-2:]
    dx, dy = dx * (width / 2), dy * (height / 2)
    x, y = _coordinates(width, middle), _coordinates(height, middle)[:, None]
    weight = (dx.pow(2) + dy.pow(2)).sum(dim=1, keepdim=True)
    total = weight.sum(dim=(-2, -1), keepdim=True) + FLOOR
    x = x - (weight * x).sum(dim=(-2, -1), keepdim=True) / total
    y = y - (weight * y).sum(dim=(-2, -1), keepdim=True) / total
    # u = shift + growth · (x, y) + turn · (y, -x): y points down, so this turns counter-clockwise.
    a = torch.stack([dx, dy, dx * x + dy * y, dx * y - dy * x], dim=-1).flatten(1, 3)
    normal = a.mT @ a / (height * width)
    ridge = RIDGE * normal.diagonal(dim1=-2, dim2=-1).mean(dim=-1) + FLOOR
    right = a.mT @ change.flatten(1)[..., None] / (height * width)
    eye = torch.eye(4, dtype=a.dtype, device=a.device)
    return -torch.linalg.solve(normal + ridge[:, None, None] * eye, right)[..., 0]


def _coordinates(size: int, like: torch.Tensor) -> torch.Tensor:
    """Of pixel centres, in [-1, 1]."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (2 / size) - 1


def _direction(prompt: str) -> list[float]:
    """The motion that a prompt asks for as a unit vector, zero if it asks for none."""
    words = motion_of(prompt)
    if words is None:
        return [0.0] * 4
    asked = MOTIONS[words]
    units = [asked.x / REACH, asked.y / REACH, asked.growth / REACH, asked.turn / TURN]
    return [unit / math.hypot(*units) for unit in units]
