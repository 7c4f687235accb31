"""The solvers of models that predict noise, x_0 or v, on their noise levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, assert_never

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.chain import Level, State, Transition
from bench.models.config import SolverName
from bench.models.noise_levels import DiffusionSolverName, Grid, make_grid, prediction_type
from bench.models.solvers import ddim_transition, dpmpp_transition, split_prediction


@dataclass(frozen=True)
class DiffusionSolver:
    """DDIM, or DPM-Solver++ 2M with its SDE form where eta > 0, on a grid."""

    name: DiffusionSolverName
    grid: Grid
    prediction_type: str

    @property
    def timesteps(self) -> Tensor:
        """The grid's, [T]."""
        return self.grid.timesteps

    def to(self, device: torch.device) -> DiffusionSolver:
        """The same with timesteps on a device."""
        return replace(self, grid=self.grid.to(device))

    def prior(self, noise: Tensor) -> State:
        """x_T is the noise itself."""
        if self.name == "ddim":
            return State(noise)
        return State(
            noise, torch.zeros_like(noise), torch.zeros(len(noise), dtype=torch.bool, device=noise.device)
        )

    def transition(self, state: State, output: Tensor, i: int, eta: Tensor) -> Transition:
        """Step i, from the network's output."""
        a_t, a_prev = self.grid.a_t[i], self.grid.a_prev[i]
        x0, eps = split_prediction(output, state.x, a_t, self.prediction_type)
        if self.name == "ddim":
            return ddim_transition(x0, eps, a_t, a_prev, eta)
        if self.name == "dpmpp":
            return dpmpp_transition(
                state.x,
                x0,
                a_t,
                a_prev,
                eta,
                older=state.history,
                older_valid=state.valid,
                a_older=self.grid.a_t[i - 1] if i > 0 else None,
            )
        assert_never(self.name)

    def predict_x0(self, state: State, output: Tensor, i: int) -> Tensor:
        """What the output says about x_0."""
        return split_prediction(output, state.x, self.grid.a_t[i], self.prediction_type)[0]

    def level(self, i: int) -> Level:
        """sqrt(a_t) of the signal, sqrt(1 - a_t) of the noise."""
        a_t = float(self.grid.a_t[i])
        return Level(a_t**0.5, (1 - a_t) ** 0.5)


def diffusion_solver(settings: dict[str, Any], name: SolverName, steps: int, tokens: int) -> DiffusionSolver:
    """The solver on a scheduler's noise levels, which do not depend on the number of tokens.

    settings: the scheduler's config, `_class_name` with it. Raises BenchError as `make_grid` does, and if the
    solver is none for such models.
    """
    del tokens
    if name not in ("ddim", "dpmpp"):
        raise BenchError(
            f"model.solver: {name} is for flow matching, and this model's network predicts no velocity: "
            "choose ddim or dpmpp"
        )
    return DiffusionSolver(name, make_grid(settings, name, steps), prediction_type(settings))
