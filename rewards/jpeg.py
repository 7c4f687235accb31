"""JPEG file size as a reward: compressibility or incompressibility.

Source: Black et al. 2023, "Training Diffusion Models with Reinforcement Learning" (DDPO, arXiv:2305.13301):
the picture's size after JPEG compression at quality 95, in kilobytes (1000 bytes), negated for
compressibility. As in the authors' code, pixels are rounded to 8 bits and Pillow encodes them (4:2:0 chroma
subsampling).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.reward import Reward

if TYPE_CHECKING:
    from PIL import Image


class JpegConfig(Strict):
    """Settings of the JPEG reward."""

    direction: Literal["compressibility", "incompressibility"] = Field(
        default="compressibility",
        description="compressibility: -kB, small wins; incompressibility: +kB, large wins",
    )
    quality: int = Field(default=95, ge=1, le=100, description="JPEG quality; DDPO uses 95")


@final
class JpegReward(Reward):
    """Size of the JPEG file in kB with the sign of `direction`. The encoder has no gradient."""

    name: ClassVar[str] = "jpeg"
    Config: ClassVar[type[Strict]] = JpegConfig
    differentiable: ClassVar[bool] = False
    scale: ClassVar[str] = "JPEG size in kB (1000 bytes), negative for compressibility"

    def __init__(self, config: JpegConfig, device: torch.device) -> None:
        """Nothing to load; pictures are encoded on the CPU and scores returned on `device`."""
        self.device = device
        self.quality = config.quality
        self.sign = -1.0 if config.direction == "compressibility" else 1.0

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """±kB [B] of images [B, 3, H, W] in [0, 1], nan where one is not finite. Prompts play no part."""
        from bench.base.media import to_pil

        if media.ndim != 4 or media.shape[1] != 3:
            raise BenchError(f"reward jpeg: expected images [B, 3, H, W], got {list(media.shape)}")
        finite = torch.isfinite(media).flatten(1).all(dim=1).tolist()
        sizes = [
            len(encode(to_pil(image), self.quality)) / 1000 if ok else float("nan")
            for image, ok in zip(media, finite, strict=True)
        ]
        return self.sign * torch.tensor(sizes, device=self.device)


def encode(image: Image.Image, quality: int) -> bytes:
    """The JPEG file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
