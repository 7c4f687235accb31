"""Where stored activations wait for their backward when `model.offload` is set: in main memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import Parameter


class Offloader:
    """Moves tensors to main memory and back.

    Of a GPU, to memory that it reads and writes by itself (pinned), so that nobody waits: copies stand in the
    stream of its work, before what needs them and after what they are of.
    """

    def offload(self, tensor: Tensor) -> Tensor:
        """The tensor in main memory."""
        if tensor.device.type != "cuda":
            return tensor.cpu()
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)

    def restore(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor on its device again."""
        return tensor.to(device, non_blocking=device.type == "cuda")


_offloader: ContextVar[Offloader] = ContextVar("offloader", default=Offloader())  # noqa: B039  (no state)
_offloading: ContextVar[bool] = ContextVar("offloading", default=False)


@contextmanager
def offloaded() -> Iterator[None]:
    """Within the context, activations that autograd stores wait in main memory for their backward.

    Weights, which it stores too, stay where they are: a copy per step would be larger than the activations.
    """
    offloader = _offloader.get()

    def pack(tensor: Tensor) -> tuple[torch.device, Tensor]:
        weight = isinstance(tensor, Parameter) or isinstance(tensor._base, Parameter)
        return tensor.device, tensor if weight else offloader.offload(tensor)

    def unpack(packed: tuple[torch.device, Tensor]) -> Tensor:
        device, tensor = packed
        return offloader.restore(tensor, device)

    token = _offloading.set(True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _offloading.reset(token)


def is_offloading() -> bool:
    """Whether what autograd stores goes to main memory now."""
    return _offloading.get()


@contextmanager
def offloading_by(offloader: Offloader) -> Iterator[None]:
    """Within the context, another offloader: one that only counts, where device and main memory are one."""
    token = _offloader.set(offloader)
    try:
        yield
    finally:
        _offloader.reset(token)
