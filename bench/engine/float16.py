"""Vector–Jacobian products through networks that compute in float16.

float16 has few bits below 6e-5, nothing below 6e-8 and nothing above 65504. A cotangent of 1e-4 loses a
twentieth of its gradient on the way back through a network, one of 1e-5 a third. So it goes in multiplied by
a power of two that brings its largest value to between 8 and 16, and what comes out is divided by the same
number: exact in float32, in which both are. Where the pass overflows, it is made again with less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.engine.batch import Gradients
from bench.engine.chain import per_row

# What is multiplied: outputs, the inputs and parameters that gradients are taken of, and outputs' cotangents.
Product: TypeAlias = "tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]"

EXPONENTS = (4, -4, -12, -20)  # of the largest value that goes in, one after the other


@runtime_checkable
class SaysPrecision(Protocol):
    """A chain that says what its network and its decoder compute in. Of others float32 is assumed."""

    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        ...

    @property
    def decoder_dtype(self) -> torch.dtype:
        """The decoder's."""
        ...


@dataclass(frozen=True)
class Through:
    """What a gradient goes back through: its name and the setting of its dtype, for messages.

    float16: whether it computes in that. by_row: rows of inputs and outputs belong together, so each has a
    factor of its own; not where gradients of parameters sum over rows.
    """

    name: str
    setting: str
    float16: bool
    by_row: bool = False

    def vjp(self, make: Callable[[], Product]) -> Gradients:
        """Gradients of the inputs, None where there is none. The graph is freed.

        make: builds the graph; called again if a pass in float16 overflowed. Raises BenchError if the last
        one did, too; cotangents that are not finite give gradients that are not.
        """
        if not self.float16:
            outputs, inputs, cotangents = make()
            return torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
        for exponent in EXPONENTS:
            outputs, inputs, cotangents = make()
            factors = _factors(cotangents, exponent, self.by_row)
            seeds = _times(cotangents, factors)
            gradients = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True)
            found = [g for g in gradients if g is not None]
            if _finite(found) or not _finite(cotangents):
                back = iter(_times(found, 1 / factors))
                return [None if g is None else next(back) for g in gradients]
        raise BenchError(
            f"the gradient through {self.name} overflows in float16, also where what goes in is scaled down "
            f"to 2^{EXPONENTS[-1]} (2^{EXPONENTS[0]} is usual): --set {self.setting}=bfloat16, or float32"
        )


def network(chain: object, step: int | None = None) -> Through:
    """The chain's network, at one of its steps."""
    name = "the network" if step is None else f"the network at step {step}"
    float16 = isinstance(chain, SaysPrecision) and chain.dtype == torch.float16
    return Through(name, "model.dtype", float16)


def decoder(chain: object) -> Through:
    """The chain's decoder, from latents to media."""
    float16 = isinstance(chain, SaysPrecision) and chain.decoder_dtype == torch.float16
    return Through("the image decoder", "model.vae_dtype", float16, by_row=True)


def _factors(cotangents: Sequence[torch.Tensor], exponent: int, by_row: bool) -> torch.Tensor:
    """Powers of two that bring the largest value of all, or [rows] of each row, to just below 2^exponent."""
    peaks = torch.stack([c.flatten(1).abs().amax(dim=1) for c in cotangents]).amax(dim=0)
    peak = peaks if by_row else peaks.amax()
    return power_of_two(exponent - torch.frexp(peak).exponent.clamp(-100, 100))


def power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent for int32 exponents of -126 to 127, float32, by its bits: a GPU's own powers may be off in
    the last one."""
    return ((exponent + 127) << 23).view(torch.float32)


def _times(tensors: Sequence[torch.Tensor], factors: torch.Tensor) -> Sequence[torch.Tensor]:
    if factors.ndim:
        return [t * per_row(factors, t) for t in tensors]
    return torch._foreach_mul(list(tensors), factors) if tensors else []


def _finite(tensors: Sequence[torch.Tensor]) -> bool:
    return not tensors or bool(torch.stack(torch._foreach_norm(list(tensors), torch.inf)).isfinite().all())
