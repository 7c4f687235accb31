"""A batch through a function in chunks, so that the memory of a gradient is one chunk's."""

from __future__ import annotations

from collections.abc import Callable

from bench.base.lazy import torch


def in_chunks(run: Callable[[slice], torch.Tensor], rows: int, chunk: int) -> torch.Tensor:
    """run(slice) of every `chunk` rows of a batch, one after the other, put together.

    With a graph, too, the activations of one chunk at most are in memory: where there are several, each is
    dropped after its forward pass and computed again in the backward pass.
    """
    parts = [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([run(part) for part in parts])
    from torch.utils.checkpoint import checkpoint

    again = [checkpoint(run, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(again)
