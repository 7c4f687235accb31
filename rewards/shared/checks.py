"""What every reward checks before it scores."""

from __future__ import annotations

from collections.abc import Sequence

from bench.base.errors import BenchError
from bench.base.lazy import torch


def check_pairs(media: torch.Tensor, prompts: Sequence[str], reward: str) -> None:
    """One prompt for each picture [B, 3, H, W]. Raises BenchError."""
    if media.ndim != 4 or media.shape[1] != 3:
        raise BenchError(f"reward {reward}: expected images [B, 3, H, W], got {list(media.shape)}")
    if len(media) != len(prompts):
        raise BenchError(f"reward {reward}: {len(media)} images but {len(prompts)} prompts")


def check_videos(media: torch.Tensor, prompts: Sequence[str], reward: str) -> None:
    """One prompt for each video [B, F, 3, H, W]. Raises BenchError."""
    if media.ndim != 5 or media.shape[2] != 3:
        raise BenchError(
            f"reward {reward}: expected videos [B, F, 3, H, W], got {list(media.shape)}: it scores no images"
        )
    if len(media) != len(prompts):
        raise BenchError(f"reward {reward}: {len(media)} videos but {len(prompts)} prompts")
