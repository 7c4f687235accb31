"""Random numbers keyed by what they are for, so that no result depends on order, micro-batches or
processes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from bench.base.lazy import torch


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed that is a fixed function of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def normal(keys: Sequence[tuple[int | str, ...]], shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Standard normal numbers [len(keys), *shape]: row b depends on keys[b] alone (and on the device's
    kind)."""
    out = torch.empty(len(keys), *shape, device=device)
    generator = torch.Generator(device)
    for row, key in zip(out, keys, strict=True):
        generator.manual_seed(derived_seed(*key))
        torch.randn(tuple(shape), generator=generator, device=device, out=row)
    return out


def uniform(*key: int | str) -> random.Random:
    """A Python generator for the few discrete draws (block starts, truncation lengths)."""
    return random.Random(derived_seed(*key))
