"""Noise levels of any scheduler's config: steps join, and what is not understood is refused."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from bench.base.errors import BenchError
from bench.models.noise_levels import DiffusionSolverName, make_grid

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD: dict[str, Any] = {"_class_name": "DDIMScheduler", **BETAS, "steps_offset": 1, "set_alpha_to_one": False}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

pytestmark = pytest.mark.silent


def alphas() -> torch.Tensor:
    """Cumulative alphas of the betas above, [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.cumprod(1 - betas, dim=0)


@pytest.mark.parametrize("steps", [1, 7, 28, 30, 50, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("to_one", [False, True])
def test_every_ddim_step_ends_where_the_next_begins(spacing: str, steps: int, to_one: bool) -> None:
    grid = make_grid(SD | {"timestep_spacing": spacing, "set_alpha_to_one": to_one}, "ddim", steps)
    levels = alphas()
    torch.testing.assert_close(grid.a_t, levels[grid.timesteps], rtol=1e-5, atol=1e-7)
    assert torch.equal(grid.a_prev[:-1], grid.a_t[1:])
    assert float(grid.a_prev[-1]) == pytest.approx(1.0 if to_one else float(levels[0]), abs=1e-6)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 4, 8, 20, 25, 50, 125, 250, 500])
def test_numbers_of_steps_that_divide_have_diffusers_levels_bit_for_bit(spacing: str, steps: int) -> None:
    settings = SD | {"timestep_spacing": spacing}
    grid, theirs = make_grid(settings, "ddim", steps), DDIMScheduler.from_config(settings)
    assert isinstance(theirs, DDIMScheduler)
    theirs.set_timesteps(steps)
    before = theirs.timesteps - 1000 // steps
    expected = torch.where(
        before >= 0, theirs.alphas_cumprod[before.clamp(min=0)], theirs.final_alpha_cumprod
    )
    assert torch.equal(grid.timesteps, theirs.timesteps) and torch.equal(grid.a_prev, expected)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [7, 30])
def test_every_dpmpp_step_ends_where_the_next_begins(spacing: str, steps: int) -> None:
    grid = make_grid(SD | {"timestep_spacing": spacing}, "dpmpp", steps)
    assert torch.equal(grid.a_prev[:-1], grid.a_t[1:]) and bool((grid.a_t < grid.a_prev).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "a EDMEulerScheduler is not understood"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "is not understood"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is not understood"),
        ({"_class_name": "LCMScheduler"}, "is not understood"),
        ({"_class_name": "TCDScheduler"}, "is not understood"),
        ({"prediction_type": "flow_prediction"}, "prediction_type flow_prediction is not understood"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas is true"),
        ({"thresholding": True}, "thresholding is true"),
        ({"clip_sample": True}, "clip_sample is true"),
        (ZERO_SNR, "step 0 begins with noise alone"),
        ({"beta_end": 12.0}, "its betas run from 0.00085 to 12"),
        ({"trained_betas": [0.001] * 500 + [float("nan")] * 500}, "its betas run from nan"),
        ({"trained_betas": [0.001] * 500}, "the model knows 0 … 499"),
        ({"trained_betas": [0.0] * 999 + [0.5], "prediction_type": "sample"}, "begins without noise"),
        ({"beta_schedule": "sigmoid"}, "sigmoid is not implemented"),
        ({"timestep_spacing": "middle"}, "middle is not supported"),
        ({"beta_start": "small"}, "scheduler_config.json"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
def test_schedulers_that_are_not_understood_are_refused(
    changes: dict[str, Any], message: str, solver: DiffusionSolverName
) -> None:
    with pytest.raises(BenchError, match=message):
        make_grid(SD | changes, solver, 4)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
@pytest.mark.parametrize("changes", [{"prediction_type": "v_prediction"}, {"timestep_spacing": "leading"}])
def test_zero_terminal_snr_runs_where_the_prediction_has_a_meaning(
    solver: DiffusionSolverName, changes: dict[str, str]
) -> None:
    grid = make_grid(SD | ZERO_SNR | changes, solver, 4)
    assert (float(grid.a_t[0]) < 1e-7) == ("prediction_type" in changes)


@pytest.mark.parametrize("name", ["PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "DDPM"])
def test_schedulers_of_one_family_have_one_grid(name: str) -> None:
    """Their defaults that are left unsaid (clip_sample of DDPM) ask for nothing."""
    grid = make_grid({"_class_name": f"{name}Scheduler", **BETAS}, "ddim", 10)
    assert torch.equal(grid.a_t, make_grid({"_class_name": "DDIMScheduler", **BETAS}, "ddim", 10).a_t)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
def test_steps_that_would_begin_beyond_the_noise_levels_are_refused(solver: DiffusionSolverName) -> None:
    """DDIM at 1000 steps and DPM-Solver++ at 999 with steps_offset 1."""
    steps = 1000 if solver == "ddim" else 999
    with pytest.raises(BenchError, match=f"{steps} steps would begin at timestep 1000"):
        make_grid(SD | {"timestep_spacing": "leading"}, solver, steps)
