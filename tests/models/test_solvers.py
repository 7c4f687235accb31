"""Transitions against diffusers' schedulers, on the same numbers."""

from types import SimpleNamespace
from typing import Any

import diffusers.schedulers.scheduling_dpmsolver_multistep as multistep
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from bench.engine.chain import Transition, gaussian_log_prob
from bench.models.noise_levels import ddim_grid, dpmpp_grid
from bench.models.solvers import ddim_transition, dpmpp_transition, split_prediction

STEPS = 7
SETTINGS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def numbers(*key: int) -> Tensor:
    """Standard normal [3, 4, 2, 2], a function of the key."""
    seed = sum(k * 100**n for n, k in enumerate(key))
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def network(x: Tensor, i: int) -> Tensor:
    """A made-up network's output."""
    return torch.tanh(x + 0.3 * numbers(1, i))


def row_eta(eta: float) -> Tensor:
    """The same eta for all three rows."""
    return torch.full((3,), eta)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha_to_one", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("spacing", "steps"), [("leading", STEPS), ("trailing", 8)])
def test_ddim_mean_std_sample_and_log_prob_equal_diffusers(
    eta: float, alpha_to_one: bool, prediction: str, spacing: str, steps: int
) -> None:
    """Where diffusers' steps join: at trailing spacing only for numbers of steps that divide 1000."""
    options: dict[str, Any] = SETTINGS | {
        "set_alpha_to_one": alpha_to_one,
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "clip_sample": False,
    }
    grid = ddim_grid(DDIMScheduler(**options), steps)
    scheduler: Any = DDIMScheduler(**options)
    scheduler.set_timesteps(steps)
    assert torch.equal(grid.timesteps, scheduler.timesteps)
    x = numbers(0)
    for i, t in enumerate(scheduler.timesteps):
        output, noise = network(x, i), numbers(2, i)
        x0, eps = split_prediction(output, x, grid.a_t[i], prediction)
        ours = ddim_transition(x0, eps, grid.a_t[i], grid.a_prev[i], row_eta(eta))
        step = scheduler.step(output, int(t), x, eta=eta, variance_noise=noise)
        mean = scheduler.step(output, int(t), x, eta=eta, variance_noise=torch.zeros_like(noise)).prev_sample
        std = eta * scheduler._get_variance(int(t), int(t) - 1000 // steps) ** 0.5
        torch.testing.assert_close(x0, step.pred_original_sample, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.mean, mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.std.flatten(), row_eta(float(std)), rtol=1e-4, atol=1e-7)
        after = ours.mean + ours.std * noise
        torch.testing.assert_close(after, step.prev_sample, rtol=1e-5, atol=1e-5)
        if float(std) > 0:
            expected = torch.distributions.Normal(mean, std).log_prob(step.prev_sample).flatten(1).sum(1)
            found = gaussian_log_prob(after, ours.mean, ours.std)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
        x = step.prev_sample


def test_ddims_last_step_is_noiseless_only_if_alpha_is_set_to_one() -> None:
    last = {}
    for alpha_to_one in (False, True):
        grid = ddim_grid(DDIMScheduler(**SETTINGS, set_alpha_to_one=alpha_to_one), 50)
        last[alpha_to_one] = ddim_transition(
            numbers(0), numbers(1), grid.a_t[-1], grid.a_prev[-1], row_eta(1.0)
        ).std
    assert bool((last[True] == 0).all())
    torch.testing.assert_close(last[False].flatten(), row_eta(0.0206), rtol=0.01, atol=0)


def test_eta_is_a_number_per_row() -> None:
    a_t, a_prev = torch.tensor(0.5), torch.tensor(0.7)
    eta = torch.tensor([0.0, 0.3, 1.0])
    for solve in (
        lambda e, rows: ddim_transition(numbers(0)[rows], numbers(1)[rows], a_t, a_prev, e),
        lambda e, rows: dpmpp_transition(numbers(0)[rows], numbers(1)[rows], a_t, a_prev, e),
    ):
        together: Transition = solve(eta, [0, 1, 2])
        for b in range(3):
            alone: Transition = solve(eta[[b]], [b])
            torch.testing.assert_close(together.mean[[b]], alone.mean)
            torch.testing.assert_close(together.std[[b]], alone.std)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("final", "steps"), [("zero", STEPS), ("sigma_min", 16)])
def test_dpmpp_2m_trajectory_equals_diffusers(
    stochastic: bool, prediction: str, final: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = SETTINGS | {
        "algorithm_type": "sde-dpmsolver++" if stochastic else "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "prediction_type": prediction,
        "final_sigmas_type": final,
    }
    grid = dpmpp_grid(DPMSolverMultistepScheduler(**options), steps)
    scheduler: Any = DPMSolverMultistepScheduler(**options)
    scheduler.set_timesteps(steps)
    calls = SimpleNamespace(i=0)
    monkeypatch.setattr(multistep, "randn_tensor", lambda *_, **__: numbers(2, calls.i))
    x = theirs = numbers(0)
    history, eta = None, row_eta(float(stochastic))
    for i, t in enumerate(scheduler.timesteps):
        calls.i = i
        x0, _ = split_prediction(network(x, i), x, grid.a_t[i], prediction)
        out = dpmpp_transition(
            x,
            x0,
            grid.a_t[i],
            grid.a_prev[i],
            eta,
            older=history,
            older_valid=None if history is None else torch.ones(3, dtype=torch.bool),
            a_older=grid.a_t[i - 1] if i else None,
        )
        x, history = out.mean + out.std * numbers(2, i), out.history
        theirs = scheduler.step(network(theirs, i), t, theirs).prev_sample
        torch.testing.assert_close(x, theirs, rtol=2e-4, atol=2e-4)


def test_dpmpp_is_first_order_in_rows_without_a_memory() -> None:
    a_older, a_t, a_prev = torch.tensor([0.2, 0.4, 0.7])
    x, x0, older = numbers(0), numbers(1), numbers(2)
    known = torch.tensor([True, False, True])
    mixed = dpmpp_transition(
        x, x0, a_t, a_prev, row_eta(0), older=older, older_valid=known, a_older=a_older
    ).mean
    first = dpmpp_transition(x, x0, a_t, a_prev, row_eta(0)).mean
    assert torch.equal(mixed[1], first[1])
    assert not torch.allclose(mixed[0], first[0])
    ddim = ddim_transition(x0, (x - a_t.sqrt() * x0) / (1 - a_t).sqrt(), a_t, a_prev, row_eta(0)).mean
    torch.testing.assert_close(first, ddim)  # Lu et al. 2022: DPM-Solver++ 1 is DDIM


def test_sde_steps_keep_the_noise_level() -> None:
    """With x_0 known, x_prev has variance 1 - abar_prev whatever eta is."""
    a_t, a_prev = torch.tensor(0.3), torch.tensor(0.6)
    x0 = torch.zeros(3, 1)
    eta = torch.tensor([0.0, 0.3, 1.0])
    for solve in (
        lambda x: ddim_transition(x0, x / (1 - a_t).sqrt(), a_t, a_prev, eta),
        lambda x: dpmpp_transition(x, x0, a_t, a_prev, eta),
    ):
        out = solve((1 - a_t).sqrt() * torch.ones(3, 1))
        torch.testing.assert_close(out.mean**2 + out.std**2, (1 - a_prev).expand(3, 1))


def test_unknown_prediction_type_is_named() -> None:
    with pytest.raises(ValueError, match="unknown prediction type 'score'"):
        split_prediction(numbers(0), numbers(1), torch.tensor(0.5), "score")
