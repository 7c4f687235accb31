"""A stand-in for `bench.engine.random_streams.normal` that draws a hundred thousand small rows per second.

It keeps the contract (a row is a function of its key alone) and gives up the generator that makes it slow for
rows of one or two numbers: keys are hashed and turned into normal numbers all at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

USES = {"noise": 1, "zo": 2, "forward": 3}


def mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea & Flood 2014) on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def normal(keys: Sequence[tuple[int | str, ...]], shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal numbers [len(keys), *shape]: row b depends on keys[b] alone (and on the shape)."""
    uses, *rest = zip(*keys, strict=True)  # by column: most keys differ in one alone
    columns = [[USES[str(use)] for use in uses], *rest]
    numbers = [np.array(column, dtype=np.int64).astype(np.uint64) for column in columns]
    gamma = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = np.zeros(len(keys), dtype=np.uint64)
        for column in numbers:
            state = mixed((state ^ mixed(column + gamma)) + gamma)
        count = int(np.prod(shape))
        counter = np.arange(1, 2 * count + 1, dtype=np.uint64) * gamma
        bits = mixed(state[:, None] + counter)
    u = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    z = np.sqrt(-2 * np.log(u[:, :count])) * np.cos(2 * np.pi * u[:, count:])
    return torch.from_numpy(z.astype(np.float32)).reshape(len(keys), *shape).to(device)
