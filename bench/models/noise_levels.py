"""Where a chain's steps lie: timesteps and cumulative alphas, from the model's own scheduler settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from bench.base.errors import BenchError


@dataclass(frozen=True)
class Grid:
    """What each step runs at: timestep, and cumulative alphas at its noisy and its clean end, each [T]."""

    timesteps: Tensor
    a_t: Tensor
    a_prev: Tensor

    def to(self, device: torch.device) -> Grid:
        """The same on a device."""
        return Grid(self.timesteps.to(device), self.a_t.to(device), self.a_prev.to(device))


def ddim_grid(scheduler: DDIMScheduler, steps: int) -> Grid:
    """DDIM's grid, the last step ending at the scheduler's final_alpha_cumprod."""
    scheduler.set_timesteps(steps)
    t = scheduler.timesteps
    previous = t - scheduler.config["num_train_timesteps"] // steps
    alphas = scheduler.alphas_cumprod
    a_prev = torch.where(previous >= 0, alphas[previous.clamp(min=0)], scheduler.final_alpha_cumprod)
    return Grid(t, alphas[t], a_prev)


def dpmpp_grid(scheduler: DPMSolverMultistepScheduler, steps: int) -> Grid:
    """DPM-Solver++'s grid; cumulative alpha = 1 / (1 + sigma²), the last step usually ending at sigma = 0."""
    scheduler.set_timesteps(steps)
    a = 1 / (1 + scheduler.sigmas.double() ** 2)
    return Grid(scheduler.timesteps, a[:-1].float(), a[1:].float())


def make_grid(settings: dict[str, Any], solver: Literal["ddim", "dpmpp"], steps: int) -> Grid:
    """The solver's grid on a scheduler's noise levels. settings: any diffusers scheduler's config.

    Raises BenchError if the scheduler cannot make so many steps.
    """
    if solver == "ddim":
        ddim = DDIMScheduler.from_config(settings, clip_sample=False, thresholding=False)
        assert isinstance(ddim, DDIMScheduler)
        _check_steps(steps, ddim.config["num_train_timesteps"])
        grid = ddim_grid(ddim, steps)
    elif solver == "dpmpp":
        dpmpp = DPMSolverMultistepScheduler.from_config(
            settings,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            thresholding=False,
        )
        assert isinstance(dpmpp, DPMSolverMultistepScheduler)
        _check_steps(steps, dpmpp.config["num_train_timesteps"])
        grid = dpmpp_grid(dpmpp, steps)
    else:
        assert_never(solver)
    if len(grid.timesteps) != steps:
        raise BenchError(f"model.steps: the scheduler makes {len(grid.timesteps)} steps of {steps}")
    return grid


def _check_steps(steps: int, trained: int) -> None:
    if steps > trained:
        raise BenchError(f"model.steps: {steps}, but the model knows {trained} noise levels")
