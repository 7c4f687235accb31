"""Muon for weight matrices and convolutions, Adam for everything else, as one optimizer.

Muon (Jordan et al. 2024) replaces a matrix' momentum by the nearest (semi-)orthogonal matrix, found by a
Newton–Schulz iteration. `torch.optim.Muon` takes two-dimensional weights only; here a convolution is
reshaped to [out, in·k·k], and weights of equal shape are stacked so that one batched iteration serves
them all.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic coefficients of the reference implementation


@torch.no_grad()
def orthogonalize(gradient: Tensor, iterations: int = 5, half: bool = True) -> Tensor:
    """About U Vᵀ of gradient = U S Vᵀ; [..., m, n] → float32 [..., m, n]; half: bfloat16 inside if large."""
    x = gradient.bfloat16() if half and max(gradient.shape) > 64 else gradient
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if tall else x).float()


class MuonAdam:
    """Muon with Nesterov momentum for parameters of two or more dimensions, Adam for the rest.

    Parameters whose name contains a word of `adam_only` go to Adam whatever their shape (embeddings,
    first and last layers). half: see `orthogonalize`; ten times slower on CPUs without bfloat16.
    `step(scale)` multiplies both learning rates, which is how a schedule enters.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, Parameter]],
        lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam_only: tuple[str, ...] = (),
        half: bool = True,
    ) -> None:
        self.lr, self.adam_lr, self.momentum, self.weight_decay = lr, adam_lr, momentum, weight_decay
        self.half = half
        self.groups: dict[tuple[int, int], list[Parameter]] = {}
        plain: list[Parameter] = []
        for name, parameter in named:
            if (
                parameter.ndim >= 2
                and min(parameter.shape[:2]) >= 8
                and not any(w in name for w in adam_only)
            ):
                shape = (parameter.shape[0], parameter.numel() // parameter.shape[0])
                self.groups.setdefault(shape, []).append(parameter)
            else:
                plain.append(parameter)
        self.momenta = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.groups.items()}
        self.adam = torch.optim.Adam(plain, lr=adam_lr, betas=(0.9, 0.98))

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        self.adam.zero_grad()
        for parameters in self.groups.values():
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """One update from `.grad`, learning rates times `scale`."""
        for shape, parameters in self.groups.items():
            gradient = torch.stack(
                [torch.zeros(shape) if p.grad is None else p.grad.reshape(shape) for p in parameters]
            )
            momentum = self.momenta[shape].lerp_(gradient, 1 - self.momentum)
            update = orthogonalize(gradient.lerp(momentum, self.momentum), half=self.half)
            lr = self.lr * scale
            for parameter, direction in zip(parameters, update, strict=True):
                parameter.mul_(1 - lr * self.weight_decay)
                parameter.add_(
                    direction.reshape(parameter.shape), alpha=-lr * max(1, shape[0] / shape[1]) ** 0.5
                )
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * scale
        self.adam.step()

    def state_dict(self) -> dict:
        """Everything a resumed run needs."""
        return {"momenta": list(self.momenta.values()), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`."""
        for momentum, stored in zip(self.momenta.values(), state["momenta"], strict=True):
            momentum.copy_(stored)
        self.adam.load_state_dict(state["adam"])
