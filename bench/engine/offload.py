"""Where stored activations wait for their backward when `model.offload` is set: in main memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import Parameter


class Mover:
    """Moves tensors to main memory and back."""

    def away(self, tensor: Tensor) -> Tensor:
        """What stands for it in main memory."""
        return tensor.cpu()

    def back(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor on its device again."""
        return tensor.to(device)


_mover: ContextVar[Mover] = ContextVar("mover", default=Mover())  # noqa: B039  (it has no state)
_parking: ContextVar[bool] = ContextVar("parking", default=False)


@contextmanager
def parked(offload: bool) -> Iterator[None]:
    """Within the context, activations that autograd stores wait in main memory for their backward, if so.

    Weights, which it stores too, stay where they are: a copy per step would be larger than the activations.
    """
    mover = _mover.get()

    def pack(tensor: Tensor) -> tuple[torch.device, Tensor]:
        weight = isinstance(tensor, Parameter) or isinstance(tensor._base, Parameter)
        return tensor.device, tensor if weight else mover.away(tensor)

    def unpack(packed: tuple[torch.device, Tensor]) -> Tensor:
        device, tensor = packed
        return mover.back(tensor, device)

    token = _parking.set(offload)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack) if offload else nullcontext():
            yield
    finally:
        _parking.reset(token)


def is_parking() -> bool:
    """Whether what autograd stores goes to main memory now."""
    return _parking.get()


@contextmanager
def moving(mover: Mover) -> Iterator[None]:
    """Within the context, another mover: one that only counts, where device and main memory are the same."""
    token = _mover.set(mover)
    try:
        yield
    finally:
        _mover.reset(token)
