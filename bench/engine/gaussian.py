"""Row-wise helpers for Gaussian transitions."""

from __future__ import annotations

import math

from torch import Tensor


def per_row(value: Tensor, like: Tensor) -> Tensor:
    """[B] → [B, 1, …] so that it multiplies `like` [B, …] row by row."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(x; mean, std²) summed over each row's dimensions: [B, …] → [B]. std > 0, broadcastable to x."""
    logs = -((x - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return logs.expand_as(x).flatten(1).sum(1)
