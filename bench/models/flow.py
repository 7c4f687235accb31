"""Flow matching's noise levels and solvers: sigma from 1 to 0, spaced as the model's own scheduler says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.chain import Level, State, Transition
from bench.models.config import SolverName
from bench.models.flow_solvers import (
    euler_transition,
    flow_cps_transition,
    flow_sde_transition,
    split_velocity,
)

FlowSolverName = Literal["euler", "flow_sde", "flow_cps"]
FILE = "the model's scheduler_config.json"
NOT_DONE = ("invert_sigmas", "stochastic_sampling")  # settings that would change what a step does


@dataclass(frozen=True)
class FlowSolver:
    """The solver `name` on a grid: [T] timesteps, and sigma at each step's noisy and at its clean end.

    Sigmas stay on the host, as the cumulative alphas of `bench.models.noise_levels` do.
    """

    name: FlowSolverName
    timesteps: Tensor
    sigma: Tensor
    sigma_prev: Tensor

    def to(self, device: torch.device) -> FlowSolver:
        """The same with timesteps on a device, where the network reads them."""
        return replace(self, timesteps=self.timesteps.to(device))

    def prior(self, noise: Tensor) -> State:
        """x_T is the noise itself."""
        return State(noise)

    def transition(self, state: State, output: Tensor, i: int, eta: Tensor) -> Transition:
        """Step i; output: the velocity. Euler's method on the ODE where eta is 0."""
        step = (state.x, output, self.sigma[i], self.sigma_prev[i], eta)
        if self.name == "euler":
            return euler_transition(*step)
        if self.name == "flow_sde":
            return flow_sde_transition(*step)
        if self.name == "flow_cps":
            return flow_cps_transition(*step)
        assert_never(self.name)

    def predict_x0(self, state: State, output: Tensor, i: int) -> Tensor:
        """x - sigma v."""
        return split_velocity(output, state.x, self.sigma[i])[0]

    def level(self, i: int) -> Level:
        """1 - sigma of the signal, sigma of the noise."""
        sigma = float(self.sigma[i])
        return Level(1 - sigma, sigma)


def flow_solver(
    settings: dict[str, Any],
    name: SolverName,
    steps: int,
    tokens: int,
    levels: Sequence[float] | None = None,
) -> FlowSolver:
    """The solver on the noise levels of a FlowMatchEulerDiscreteScheduler, shifted as it says.

    settings: the scheduler's config, `_class_name` with it. tokens: patches of one picture, by which a
    dynamic shift goes. levels: before the shift, one per step; None: the scheduler's own. Raises BenchError
    if the solver is none for flow matching, or the scheduler is not understood.
    """
    scheduler = _scheduler(settings)
    try:
        scheduler.set_timesteps(steps, sigmas=levels, mu=_dynamic_shift(scheduler.config, tokens))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise BenchError(f"{FILE}: {error}") from error
    return solver_on(scheduler, name, steps)


def solver_on(scheduler: Any, name: SolverName, steps: int) -> FlowSolver:
    """The solver on the timesteps and sigmas that a scheduler of diffusers has been set to.

    Raises BenchError if the solver is none for flow matching, or the levels are not.
    """
    if name not in ("euler", "flow_sde", "flow_cps"):
        raise BenchError(
            f"model.solver: {name} is for models that predict noise, and this one predicts a velocity (flow "
            "matching): choose euler, flow_sde or flow_cps"
        )
    if steps > (trained := scheduler.config["num_train_timesteps"]):
        raise BenchError(f"model.steps: {steps}, but the model knows {trained} noise levels")
    sigmas = scheduler.sigmas
    if not bool((sigmas[:-1] > sigmas[1:]).all()) or float(sigmas[0]) > 1:
        raise BenchError(
            f"{FILE}: its noise levels do not fall from at most 1 to 0 in {steps} steps: see shift, "
            "base_shift and max_shift there"
        )
    return FlowSolver(name, scheduler.timesteps, sigmas[:-1], sigmas[1:])


def _scheduler(settings: dict[str, Any]) -> FlowMatchEulerDiscreteScheduler:
    name = settings["_class_name"]
    if name != FlowMatchEulerDiscreteScheduler.__name__:
        raise BenchError(
            f"{FILE}: a {name} is not understood; a flow-matching model's has to be a "
            f"{FlowMatchEulerDiscreteScheduler.__name__}"
        )
    asked = [key for key in NOT_DONE if settings.get(key)]
    if asked:
        raise BenchError(f"{FILE}: {asked[0]} is true, and is not done here")
    try:
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(settings)
    except (ValueError, TypeError, ImportError) as error:
        raise BenchError(f"{FILE}: {error}") from error
    assert isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return scheduler


def _dynamic_shift(config: Any, tokens: int) -> float | None:
    """mu, where the scheduler shifts by the picture's size: linear in its number of patches."""
    if not config["use_dynamic_shifting"]:
        return None
    fewest, most = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (most - fewest)
    return config["base_shift"] + slope * (tokens - fewest)
