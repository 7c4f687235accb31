"""PickScore: CLIP ViT-H/14 fine-tuned on half a million users' choices between two pictures of a prompt.

Source: Kirstain et al. 2023, "Pick-a-Pic" (arXiv:2305.01569): exp(logit_scale) · cos(image, text), which is
100 times the cosine, about 15 … 25. The checkpoint is in transformers' format, so this is the reward `clip`
with another checkpoint and the processor of the model that it was fine-tuned from.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

from pydantic import Field

from bench.base.strict import Strict
from rewards.shared.checkpoint import CHUNK, HALF, Dtype
from rewards.shared.clip_towers import ClipConfig, ClipScore


class PickScoreConfig(ClipConfig):
    """`clip`'s settings with PickScore's values."""

    random_source: ClassVar[str] = "random:ViT-H-14"

    source: str = Field(
        default="hub:yuvalkirstain/PickScore_v1",
        description="`hub:org/name`, `path:directory` or `random:ViT-H-14`",
    )
    processor: str | None = Field(
        default="hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        description="where tokenizer and preprocessor_config.json are; null: with the checkpoint",
    )
    scale: Literal["cosine", "logit"] = Field(
        default="logit", description="logit: exp(logit_scale) · cosine, as published; cosine: in [-1, 1]"
    )
    dtype: Dtype = Field(default="half", description=HALF)
    chunk: int = Field(default=8, ge=1, description=CHUNK)


@final
class PickScoreReward(ClipScore):
    """exp(logit_scale) · cos(image, text). Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "pickscore"
    parameters: ClassVar[int] = 986_109_441
    Config: ClassVar[type[Strict]] = PickScoreConfig
    scale: ClassVar[str] = "100 · cosine (exp of the logit scale), usually 15 … 25"
