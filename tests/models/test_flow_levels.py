"""Noise levels of flow matching against diffusers' scheduler, and what is refused."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from bench.base.errors import BenchError
from bench.engine.chain import State
from bench.models.config import SolverName
from bench.models.flow import flow_solver

SD3: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
FLUX = SD3 | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def test_a_static_shift_is_diffusers() -> None:
    solver = flow_solver(SD3, "euler", 28, 1024)
    theirs: Any = FlowMatchEulerDiscreteScheduler.from_config(SD3)
    theirs.set_timesteps(28)
    assert torch.equal(solver.timesteps, theirs.timesteps)
    assert torch.equal(torch.cat([solver.sigma, solver.sigma_prev[-1:]]), theirs.sigmas)
    assert float(solver.sigma[0]) == 1 and float(solver.sigma_prev[-1]) == 0


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (1024, 0.63)])
def test_a_dynamic_shift_goes_by_the_number_of_patches(tokens: int, mu: float) -> None:
    solver = flow_solver(FLUX, "euler", 10, tokens)
    theirs: Any = FlowMatchEulerDiscreteScheduler.from_config(FLUX)
    theirs.set_timesteps(10, mu=mu)
    torch.testing.assert_close(solver.sigma, theirs.sigmas[:-1], rtol=1e-5, atol=1e-6)


def test_steps_are_diffusers_own() -> None:
    solver = flow_solver(SD3, "euler", 5, 1024)
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(SD3)
    scheduler.set_timesteps(5)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    theirs: Any = x
    for i, t in enumerate(scheduler.timesteps):
        x = solver.transition(State(x), torch.tanh(x), i, torch.zeros(2)).mean
        theirs = scheduler.step(torch.tanh(theirs), t, theirs).prev_sample
        torch.testing.assert_close(x, theirs)


@pytest.mark.parametrize("name", ["euler", "flow_sde", "flow_cps"])
def test_a_last_step_without_noise_ends_at_the_prediction_of_x0(name: SolverName) -> None:
    solver = flow_solver(SD3, name, 4, 1024)
    state, output = State(torch.tensor([[2.0]])), torch.tensor([[0.5]])
    end = solver.transition(state, output, 3, torch.zeros(1)).mean
    torch.testing.assert_close(end, solver.predict_x0(state, output, 3))


@pytest.mark.parametrize(
    ("changes", "name", "steps", "message"),
    [
        ({}, "ddim", 10, "model.solver: ddim is for models that predict noise"),
        ({"_class_name": "DDIMScheduler"}, "euler", 10, "a DDIMScheduler is not understood"),
        ({"invert_sigmas": True}, "euler", 10, "invert_sigmas is true"),
        ({"stochastic_sampling": True}, "euler", 10, "stochastic_sampling is true"),
        ({"shift": -1.0}, "euler", 10, "do not fall"),
        ({}, "euler", 1001, "model.steps: 1001, but the model knows 1000"),
        ({"time_shift_type": "cubic"}, "euler", 10, "time_shift_type"),
    ],
)
def test_what_is_not_understood_is_refused(
    changes: dict[str, Any], name: SolverName, steps: int, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        flow_solver(SD3 | changes, name, steps, 1024)
