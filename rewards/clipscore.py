"""CLIP score: cosine of picture and prompt by OpenAI's CLIP ViT-L/14.

Sources: Radford et al. 2021 (CLIP, arXiv:2103.00020); Hessel et al. 2021 (CLIPScore, arXiv:2104.08718). The
score here is the plain cosine. Papers report three numbers under the name: the cosine (about 0.15 … 0.35),
100 times the cosine (`scale: logit`, as torchmetrics), and Hessel's w · max(cosine, 0) with w = 2.5, who used
ViT-B/32 and put "A photo depicts" before each caption. It is the reward `clip` with this checkpoint.
"""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from rewards.shared.clip_towers import ClipConfig, ClipScore


class ClipScoreConfig(ClipConfig):
    """`clip`'s settings with OpenAI's ViT-L/14."""

    random_source: ClassVar[str] = "random:ViT-L-14"

    source: str = Field(
        default="hub:openai/clip-vit-large-patch14",
        description="`hub:org/name`, `path:directory` or `random:ViT-L-14`",
    )


@final
class ClipScoreReward(ClipScore):
    """cos(image, text). Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "clipscore"
    parameters: ClassVar[int] = 427_616_513
    Config: ClassVar[type[Strict]] = ClipScoreConfig
    scale: ClassVar[str] = "cosine in [-1, 1], usually 0.15 … 0.35; with `scale: logit` times 100"
