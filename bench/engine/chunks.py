"""A batch through a function in chunks, so that the memory of a gradient is one chunk's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(run: Callable[[slice], Tensor], rows: int, chunk: int) -> Tensor:
    """run(slice) of every `chunk` rows of a batch, one after the other, put together.

    With a graph, too, the activations of one chunk at most are in memory: where there are several, each is
    dropped after its forward pass and computed again in the backward pass.
    """
    parts = [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([run(part) for part in parts])
    again = [checkpoint(run, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(again)
