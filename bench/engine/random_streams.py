"""Random numbers keyed by what they are for, so that no result depends on order, micro-batches or
processes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from bench.base.lazy import torch

BLOCK = 2**14 - 16


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed that is a fixed function of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def normal(keys: Sequence[tuple[int | str, ...]], shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Standard normal numbers [len(keys), *shape]: row b depends on keys[b] alone (and on whether the device
    is a GPU)."""
    out = torch.empty(len(keys), *shape, device=device)
    generator = torch.Generator(device)
    for row, key in zip(out.flatten(1), keys, strict=True):
        generator.manual_seed(derived_seed(*key))
        for part in _blocks(row):
            torch.randn(part.shape, generator=generator, device=device, out=part)
    return out


def _blocks(row: torch.Tensor) -> Sequence[torch.Tensor]:
    """The row [n] in blocks of at most 2^14 numbers.

    A GPU draws as many numbers at once as it has threads, so more of them would depend on its size; so many
    threads has the smallest card, and the smallest part of one (MIG). The CPU draws 16 at a time and the last
    16 again: in blocks of a multiple of that, and none shorter, it gives the numbers that it gives in one
    piece.
    """
    ends = range(BLOCK, len(row) - 15, BLOCK)
    return row.tensor_split(list(ends)) if ends else [row]


def uniform(*key: int | str) -> random.Random:
    """A Python generator for the few discrete draws (block starts, truncation lengths)."""
    return random.Random(derived_seed(*key))
