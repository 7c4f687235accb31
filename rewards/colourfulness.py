"""How colourful a picture looks.

Source: Hasler & Süsstrunk 2003, "Measuring colourfulness in natural images" (Proc. SPIE 5007), their metric
M^(3), the one that stays in sRGB:

    rg = R - G,  yb = (R + G) / 2 - B,  M = sqrt(sigma_rg² + sigma_yb²) + 0.3 · sqrt(mu_rg² + mu_yb²)

with R, G, B on sRGB's 0 … 255 scale, mean mu and (population) standard deviation sigma over pixels. The
paper's anchors: 0 not colourful, 15 slightly, 33 moderately, 45 averagely, 59 quite, 82 highly, 109
extremely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.reward import Reward


class ColourfulnessConfig(Strict):
    """The metric has no settings."""


@final
class ColourfulnessReward(Reward):
    """Hasler & Süsstrunk's M^(3). Differentiable; at its kink, on a grey picture, the gradient is 0."""

    name: ClassVar[str] = "colourfulness"
    Config: ClassVar[type[Strict]] = ColourfulnessConfig
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "Hasler-Süsstrunk M3: 0 grey, 33 moderately, 59 quite, 109 extremely colourful"

    def __init__(self, config: ColourfulnessConfig, device: torch.device) -> None:
        """Nothing to load."""

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """M [B] of images [B, 3, H, W] in [0, 1]. Prompts play no part."""
        if media.ndim != 4 or media.shape[1] != 3:
            raise BenchError(f"reward colourfulness: expected images [B, 3, H, W], got {list(media.shape)}")
        wide = media if media.dtype == torch.float64 else media.float()
        return colourfulness(255 * wide)


def colourfulness(rgb: torch.Tensor) -> torch.Tensor:
    """M [B] of rgb [B, 3, H, W] in 0 … 255."""
    r, g, b = rgb.flatten(2).unbind(dim=1)
    opponent = torch.stack((r - g, (r + g) / 2 - b), dim=1)  # [B, 2, H·W]
    mu = opponent.mean(dim=2)
    pixels = opponent.shape[2]
    # The norms of torch.linalg have gradient 0 at 0, where sqrt has none.
    sigma = torch.linalg.vector_norm((opponent - mu[:, :, None]).flatten(1), dim=1) / pixels**0.5
    return sigma + 0.3 * torch.linalg.vector_norm(mu, dim=1)
