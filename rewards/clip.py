"""Text-image agreement by any CLIP checkpoint in transformers' format.

Sources: Radford et al. 2021 (CLIP, arXiv:2103.00020), cosine of the two embeddings; Kirstain et al. 2023
(PickScore, arXiv:2305.01569), the same model class fine-tuned on preferences, exp(logit_scale) · cosine.
Pictures take the path of the checkpoint's own processor, written differentiably
(`rewards.shared.clip_image`).
"""

from __future__ import annotations

from typing import ClassVar, final

from bench.base.strict import Strict
from rewards.shared.clip_towers import ClipConfig, ClipScore


@final
class ClipReward(ClipScore):
    """cos(image, text), or exp(logit_scale) times that. Differentiable in the image; the model is frozen."""

    name: ClassVar[str] = "clip"
    Config: ClassVar[type[Strict]] = ClipConfig
    scale: ClassVar[str] = "cosine of image and text, in [-1, 1]; with `scale: logit` times exp(logit_scale)"
