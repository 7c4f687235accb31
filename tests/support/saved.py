"""How much autograd holds for a backward."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Stored:
    """A saved tensor, so that its life can be followed."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saved_bytes() -> Iterator[dict[str, int]]:
    """Bytes that autograd holds for a backward: now and at most, within the context."""
    meter = {"now": 0, "peak": 0}

    def free(size: int) -> None:
        meter["now"] -= size

    def pack(tensor: Tensor) -> Stored:
        stored, size = Stored(tensor), tensor.numel() * tensor.element_size()
        meter["now"] += size
        meter["peak"] = max(meter["peak"], meter["now"])
        weakref.finalize(stored, free, size)
        return stored

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda stored: stored.tensor):
        yield meter
