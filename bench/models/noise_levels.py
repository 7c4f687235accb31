"""Where a chain's steps lie: timesteps and cumulative alphas, from the model's own scheduler settings.

Understood are the schedulers of one family: noise levels by betas, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps.
Of their settings those count that say what the model was trained on, and how steps are spaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.solvers import PREDICTION_TYPES

DiffusionSolverName = Literal["ddim", "dpmpp"]
# diffusers' list of exchangeable ones, but EDM's has sigmas and no betas.
SCHEDULERS = ({kind.name for kind in KarrasDiffusionSchedulers} - {"EDMEulerScheduler"}) | {
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
}
NOT_DONE = ("clip_sample", "thresholding", "use_flow_sigmas")  # settings that would change what a step does
FILE = "the model's scheduler_config.json"
NO_SIGNAL = 1e-7  # a cumulative alpha of noise alone; diffusers writes 2^-24 for zero


@dataclass(frozen=True)
class Grid:
    """What each step runs at: timestep, and cumulative alphas at its noisy and its clean end, each [T].

    The alphas stay on the host: an operation on a GPU takes one as a number, and asking for one waits for
    nobody.
    """

    timesteps: Tensor
    a_t: Tensor
    a_prev: Tensor

    def to(self, device: torch.device) -> Grid:
        """The same with timesteps on a device, where the network reads them."""
        return replace(self, timesteps=self.timesteps.to(device))


def ddim_grid(scheduler: DDIMScheduler, steps: int) -> Grid:
    """DDIM's grid: a step ends where the next begins, the last one at the scheduler's final_alpha_cumprod.

    Raises BenchError for steps outside the model's noise levels.
    """
    scheduler.set_timesteps(steps)
    _check_levels_exist(scheduler)
    a_t = scheduler.alphas_cumprod[scheduler.timesteps]
    return Grid(scheduler.timesteps, a_t, torch.cat([a_t[1:], scheduler.final_alpha_cumprod.reshape(1)]))


def dpmpp_grid(scheduler: DPMSolverMultistepScheduler, steps: int) -> Grid:
    """DPM-Solver++'s grid; cumulative alpha = 1 / (1 + sigma²), the last step usually ending at sigma = 0.

    Raises BenchError for steps outside the model's noise levels.
    """
    scheduler.set_timesteps(steps)
    _check_levels_exist(scheduler)
    a = 1 / (1 + scheduler.sigmas.double() ** 2)
    return Grid(scheduler.timesteps, a[:-1].float(), a[1:].float())


def make_grid(settings: dict[str, Any], solver: DiffusionSolverName, steps: int) -> Grid:
    """The solver's grid on a scheduler's noise levels.

    settings: the scheduler's config, `_class_name` with it. Raises BenchError if the scheduler is none that
    is understood, cannot make so many steps, or has noise levels from which the network's prediction gives no
    x_0.
    """
    check_scheduler(settings)
    try:
        grid = _grid(settings, solver, steps)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise BenchError(f"{FILE}: {error}") from error
    if len(grid.timesteps) != steps:
        raise BenchError(
            f"model.steps: {steps} steps of the scheduler's spacing are {len(grid.timesteps)} when rounded. "
            "Take one more or one fewer"
        )
    _check_informative(grid, prediction_type(settings))
    return grid


def prediction_type(settings: dict[str, Any]) -> str:
    """What the network predicts, by a scheduler's config; where that does not say, epsilon."""
    return str(settings["prediction_type"]) if "prediction_type" in settings else "epsilon"


def check_scheduler(settings: dict[str, Any]) -> None:
    """Raises BenchError unless the solvers here do what a scheduler with this config means."""
    name = settings["_class_name"]
    if name not in SCHEDULERS:
        raise BenchError(
            f"{FILE}: a {name} is not understood: its noise levels or steps are not "
            "those of DDIM and DPM-Solver++, which are all that runs here. Models made for it cannot be run; "
            f"known: {', '.join(sorted(SCHEDULERS))}"
        )
    predicted = prediction_type(settings)
    if predicted not in PREDICTION_TYPES:
        raise BenchError(
            f"{FILE}: prediction_type {predicted} is not understood; known: {', '.join(PREDICTION_TYPES)}"
        )
    defaults = settings.get("_use_default_values", ())
    asked = [key for key in NOT_DONE if key in settings and key not in defaults and settings[key]]
    if asked:
        raise BenchError(
            f"{FILE}: {asked[0]} is true, and is not done here. Where the model was "
            f"not trained for it (latents are not confined to -1 … 1), write false there"
        )


def _grid(settings: dict[str, Any], solver: DiffusionSolverName, steps: int) -> Grid:
    if solver == "ddim":
        ddim = DDIMScheduler.from_config(settings, clip_sample=False, thresholding=False)
        assert isinstance(ddim, DDIMScheduler)
        _check_steps(steps, ddim.config["num_train_timesteps"])
        return ddim_grid(ddim, steps)
    if solver == "dpmpp":
        dpmpp = DPMSolverMultistepScheduler.from_config(
            settings,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            thresholding=False,
        )
        assert isinstance(dpmpp, DPMSolverMultistepScheduler)
        _check_steps(steps, dpmpp.config["num_train_timesteps"])
        return dpmpp_grid(dpmpp, steps)
    assert_never(solver)


def _check_steps(steps: int, trained: int) -> None:
    if steps > trained:
        raise BenchError(f"model.steps: {steps}, but the model knows {trained} noise levels")


def _check_levels_exist(scheduler: DDIMScheduler | DPMSolverMultistepScheduler) -> None:
    """Beyond the last one DDIM would index out of bounds, and DPM-Solver++ take the last one again."""
    betas = scheduler.betas
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise BenchError(
            f"{FILE}: its betas run from {float(betas.min()):.4g} to {float(betas.max()):.4g}, and have to "
            "be in 0 … 1: see beta_start, beta_end and trained_betas there"
        )
    first, last = int(scheduler.timesteps.max()), len(scheduler.alphas_cumprod) - 1
    if first > last:
        raise BenchError(
            f"model.steps: {len(scheduler.timesteps)} steps would begin at timestep {first} (steps_offset "
            f"{scheduler.config['steps_offset']} in scheduler_config.json), and the model knows 0 … {last}: "
            "take fewer steps"
        )


def _check_informative(grid: Grid, predicted: str) -> None:
    if predicted == "epsilon" and float(grid.a_t.min()) < NO_SIGNAL:
        raise BenchError(
            f"{FILE}: step {int(grid.a_t.argmin())} begins with noise alone (rescale_betas_zero_snr, or a "
            "cosine schedule), and prediction_type epsilon says nothing about the picture there. A model for "
            "such levels has prediction_type v_prediction; without rescale_betas_zero_snr, or with "
            'timestep_spacing "leading", the step is not needed'
        )
    if predicted == "sample" and float(grid.a_t.max()) == 1.0:
        raise BenchError(
            f"{FILE}: step {int(grid.a_t.argmax())} begins without noise (beta_start "
            "0), and prediction_type sample says nothing about the noise there"
        )
