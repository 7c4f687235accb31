"""The chain with the published models' scheduler settings against diffusers' samplers."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from bench.models.config import ModelConfig
from bench.models.pipeline import load_pipeline
from tests.models.test_image import diffusers_picture, latents, picture
from tests.support.pipelines import small_architecture, small_chain


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "steps"), [("ddim", 10), ("dpmpp", 20)])
@pytest.mark.parametrize("name", ["sd14", "sd21", "sd21-base", "sdxl"])
def test_deterministic_chain_is_diffusers_sampler(name: str, solver: str, steps: int) -> None:
    """sd21: v-prediction; sdxl: two text encoders, pooled embeddings, sizes, zeros for the empty prompt."""
    chain = small_chain(name, spread=0.0, solver=solver, steps=steps)
    config = ModelConfig(source=f"random:{small_architecture(name)}")
    pipeline: Any = load_pipeline(config, torch.float32)
    cls = DDIMScheduler if solver == "ddim" else DPMSolverMultistepScheduler
    pipeline.scheduler = cls.from_config(pipeline.scheduler.config)
    x = latents(chain)
    ours, theirs = picture(chain, x), diffusers_picture(pipeline, chain, x)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd14", "sd21"])
def test_ddim_at_50_steps_runs_from_981_to_1_and_ends_at_the_first_training_noise_level(name: str) -> None:
    """steps_offset 1 and set_alpha_to_one False, as published."""
    solver: Any = small_chain(name, steps=50).solver
    assert solver.grid.timesteps.tolist() == list(range(981, 0, -20))
    assert float(solver.grid.a_prev[-1]) == pytest.approx(1 - 0.00085, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd14", "sd21"])
def test_dpmpp_at_20_steps_ends_without_noise(name: str) -> None:
    solver: Any = small_chain(name, solver="dpmpp", steps=20).solver
    assert len(solver.grid.timesteps) == 20 and int(solver.grid.timesteps[0]) == 999
    assert float(solver.grid.a_prev[-1]) == 1.0
    assert torch.equal(solver.grid.a_prev[:-1], solver.grid.a_t[1:])
