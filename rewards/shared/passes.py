"""How a batch goes through a frozen network in float16 without losing the gradient."""

from __future__ import annotations

from bench.base.lazy import torch
from bench.engine.float16 import power_of_two


class HalfPass:
    """One pass through a network in `dtype` whose backward pass keeps its range in float16.

    float16 has nothing below 6e-8, and few bits below 6e-5, where gradients of a score with respect to single
    activations often are. So each row of the gradient is brought to a largest value between 1/2 and 1 where
    it reaches the network's output, by a power of two, and back where it leaves the input. Rows [B, …] of
    what goes in and of what comes out belong together.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._scale: torch.Tensor | None = None

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """x in the network's precision."""
        if self.dtype == torch.float16 and x.requires_grad:
            x = x.view_as(x)  # a hook of its own, whatever else uses x
            x.register_hook(self._shrink)
        return x.to(self.dtype)

    def leave(self, y: torch.Tensor) -> torch.Tensor:
        """The network's output y in float32, or wider if it is."""
        if y.dtype != torch.float16:
            return y if y.dtype == torch.float64 else y.float()
        y = y.float()
        if y.requires_grad:
            y.register_hook(self._stretch)
        return y

    def _stretch(self, gradient: torch.Tensor) -> torch.Tensor:
        peak = gradient.flatten(1).abs().amax(dim=1)
        exponent = torch.frexp(peak).exponent.clamp(-100, 100)  # 0 where the peak is
        self._scale = power_of_two(-exponent)
        return gradient * _per_row(self._scale, gradient)

    def _shrink(self, gradient: torch.Tensor) -> torch.Tensor:
        assert self._scale is not None  # the backward pass comes from the output
        return gradient / _per_row(self._scale, gradient)


def _per_row(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
