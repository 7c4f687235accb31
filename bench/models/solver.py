"""What a chain of latents asks of its solver: the steps between noise levels, given the network's output."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from bench.engine.chain import Level, State, Transition


class Solver(Protocol):
    """A solver on the noise levels of a model. Steps i count from the noise, as everywhere."""

    @property
    def timesteps(self) -> Tensor:
        """What the network is told about the noise level of each step, [T], on its device."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same with the timesteps on a device; noise levels stay on the host (`Grid`)."""
        ...

    def prior(self, noise: Tensor) -> State:
        """The starting state from standard normal noise [B, …]."""
        ...

    def transition(self, state: State, output: Tensor, i: int, eta: Tensor) -> Transition:
        """Step i, from the network's output [B, …] at the state. eta: [B]."""
        ...

    def predict_x0(self, state: State, output: Tensor, i: int) -> Tensor:
        """x_0 predicted in one step, from the network's output at step i's state."""
        ...

    def level(self, i: int) -> Level:
        """The noise level that step i starts from."""
        ...
