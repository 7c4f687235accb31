"""Videos as a network wants them: so many frames, each prepared as a picture."""

from __future__ import annotations

from bench.base.lazy import torch
from rewards.shared.clip_image import Preprocessor

# What keys that are absent in preprocessor_config.json mean to VideoMAE's processor.
VIDEOMAE = {"resample": 2, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}


def with_frames(media: torch.Tensor, count: int) -> torch.Tensor:
    """Videos [B, F, …] with `count` frames, evenly spaced from the first to the last. Differentiable.

    Where there are more, the nearest are taken; where there are fewer, neighbours are blended linearly.
    """
    have = media.shape[1]
    if have == count:
        return media
    at = torch.linspace(0, have - 1, count, dtype=torch.float64)
    if have > count:
        return media[:, at.round().long().to(media.device)]
    left = at.floor().long()
    share = (at - left).to(media.dtype).to(media.device).reshape(1, -1, *[1] * (media.ndim - 2))
    right = (left + 1).clamp(max=have - 1)
    return media[:, left.to(media.device)] * (1 - share) + media[:, right.to(media.device)] * share


def prepared(media: torch.Tensor, preprocessor: Preprocessor) -> torch.Tensor:
    """Every frame of [B, F, 3, H, W] through the preprocessor: [B, F, 3, h, w]."""
    return preprocessor(media.flatten(0, 1)).unflatten(0, media.shape[:2])
