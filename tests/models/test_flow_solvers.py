"""Flow-matching solvers on Gaussian data, whose best velocity and whose marginals have closed forms.

With x_0 ~ N(m, s²) every step is affine, so mean and variance are propagated exactly: nothing is drawn.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bench.engine.chain import Transition
from bench.models.flow_solvers import (
    euler_transition,
    flow_cps_transition,
    flow_sde_transition,
    split_velocity,
)

MEAN, STD = 0.7, 0.6
Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Transition]
STEPS: dict[str, Step] = {
    "euler": euler_transition,
    "flow_sde": flow_sde_transition,
    "flow_cps": flow_cps_transition,
}


def variance(sigma: float) -> float:
    """Of x_sigma = (1 - sigma) x_0 + sigma eps."""
    return ((1 - sigma) * STD) ** 2 + sigma**2


def velocity(x: Tensor, sigma: float) -> Tensor:
    """E[eps - x_0 | x_sigma = x]."""
    away = (x - (1 - sigma) * MEAN) / variance(sigma)
    return sigma * away - (MEAN + (1 - sigma) * STD**2 * away)


def end(step: Step, steps: int, eta: float, *, shift: float = 1.0, start: float = 1.0) -> tuple[float, float]:
    """(mean, variance) at sigma = 0, from the true marginal at sigma = start, in equal steps that are then
    shifted."""
    uniform = torch.linspace(start, 0, steps + 1, dtype=torch.float64)
    sigma = shift * uniform / (1 + (shift - 1) * uniform)
    mean, spread = (1 - float(sigma[0])) * MEAN, variance(float(sigma[0]))
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for before, after in pairwise(sigma):
        v, etas = velocity(ends, float(before)), torch.full((2,), eta, dtype=torch.float64)
        out = step(ends, v, before, after, etas)
        offset = float(out.mean[0])
        slope = float(out.mean[1]) - offset
        mean, spread = slope * mean + offset, slope**2 * spread + float(out.std[0]) ** 2
    return mean, spread


def order(step: Step, eta: Callable[[int], float], **grid: float) -> float:
    """The power of 1 / steps with which the variance at sigma = 0 comes to that of the data."""
    coarse, fine = (end(step, n, eta(n), **grid)[1] - STD**2 for n in (60, 120))
    return math.log2(coarse / fine)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", STEPS)
def test_the_ode_ends_at_the_data_with_order_1(name: str, shift: float) -> None:
    assert order(STEPS[name], lambda _: 0.0, shift=shift) == pytest.approx(1, abs=0.03)
    assert end(STEPS[name], 30, 0.0, shift=shift)[0] == pytest.approx(MEAN, abs=1e-12)


@pytest.mark.parametrize("a", [0.3, 0.7, 1.0])
def test_flow_grpos_sde_ends_at_the_data_with_order_1_from_below_sigma_1(a: float) -> None:
    assert order(flow_sde_transition, lambda _: a, start=0.7) == pytest.approx(1, abs=0.1)


def test_flow_grpos_first_step_costs_small_a_their_order() -> None:
    """The first steps' error is forgotten as steps^(-a²): for a = 1.5 the order is 1 all the same."""
    assert order(flow_sde_transition, lambda _: 1.5) == pytest.approx(1, abs=0.25)
    late = [end(flow_sde_transition, n, 0.7)[1] - STD**2 for n in (200, 400)]
    assert late[0] > 0 and math.log2(late[0] / late[1]) < 0.5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_cps_ends_at_the_data_where_its_noise_falls_with_the_steps(shift: float) -> None:
    assert order(flow_cps_transition, lambda n: n**-0.5, shift=shift) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_cps_at_a_fixed_eta_ends_with_too_little_variance(eta: float) -> None:
    """However many steps: s² (1 + cos(eta pi / 2)) / 2."""
    found = end(flow_cps_transition, 400, eta)
    assert found[1] == pytest.approx(STD**2 * (1 + math.cos(eta * math.pi / 2)) / 2, abs=0.01)
    assert found[0] == pytest.approx(MEAN, abs=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_cps_keeps_the_coefficients_of_signal_and_noise(eta: float) -> None:
    """With x_0 and eps known, x_prev is sigma_prev away from its signal, whatever eta."""
    x0, sigma, after = torch.tensor([[2.0]]), torch.tensor(0.8), torch.tensor(0.5)
    eps = torch.tensor([[1.0]])
    x = (1 - sigma) * x0 + sigma * eps
    out = flow_cps_transition(x, eps - x0, sigma, after, torch.tensor([eta]))
    torch.testing.assert_close((out.mean - (1 - after) * x0) ** 2 + out.std**2, (after**2).reshape(1, 1))


def some(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", STEPS)
def test_without_noise_every_solver_is_eulers_method(name: str) -> None:
    x, v, none = some(3, 4, 2, 2), some(3, 4, 2, 2).flip(0), torch.zeros(3)
    for before, after in ((1.0, 0.9), (0.9, 0.4), (0.4, 0.0), (1.0, 0.0)):
        out = STEPS[name](x, v, torch.tensor(before), torch.tensor(after), none)
        torch.testing.assert_close(out.mean, x + (after - before) * v)
        assert out.std.shape == (3, 1, 1, 1) and not out.std.any()


@pytest.mark.parametrize("name", STEPS)
def test_eta_is_a_number_per_row(name: str) -> None:
    x, v, eta = some(3, 2), some(3, 2).flip(0), torch.tensor([0.0, 0.3, 1.0])
    step = STEPS[name]
    sigma, after = torch.tensor(0.6), torch.tensor(0.5)
    together = step(x, v, sigma, after, eta)
    for b in range(3):
        alone = step(x[[b]], v[[b]], sigma, after, eta[[b]])
        torch.testing.assert_close(together.mean[[b]], alone.mean)
        torch.testing.assert_close(together.std[[b]], alone.std)


def test_flow_grpos_numbers() -> None:
    """Its own formula, written out; and its first step, whose std is a, by the second level in 1 - sigma."""
    x, v, a = some(2, 3), some(2, 3).flip(0), torch.tensor([0.7, 0.7])
    sigma, dt = 0.6, -0.1
    level = 0.7 * math.sqrt(sigma / (1 - sigma))
    out = flow_sde_transition(x, v, torch.tensor(sigma), torch.tensor(sigma + dt), a)
    mean = x * (1 + level**2 / (2 * sigma) * dt) + v * (1 + level**2 * (1 - sigma) / (2 * sigma)) * dt
    torch.testing.assert_close(out.mean, mean)
    torch.testing.assert_close(out.std.flatten(), torch.full((2,), level * math.sqrt(-dt)))
    first = flow_sde_transition(x, v, torch.tensor(1.0), torch.tensor(0.95), a)
    torch.testing.assert_close(first.std.flatten(), a)
    torch.testing.assert_close(first.mean, x * (1 - 0.7**2 / 2) - 0.05 * v)


def test_which_last_steps_take_noise() -> None:
    x, sigma, none, eta = some(1, 2), torch.tensor(0.1), torch.tensor(0.0), torch.ones(1)
    stds = {name: float(step(x, x, sigma, none, eta).std) for name, step in STEPS.items()}
    assert stds["euler"] == stds["flow_cps"] == 0
    assert stds["flow_sde"] == pytest.approx(0.1 / math.sqrt(0.9))


def test_a_velocity_is_noise_less_signal() -> None:
    x0, eps = some(2, 3), some(2, 3).flip(0)
    found = split_velocity(eps - x0, 0.7 * x0 + 0.3 * eps, torch.tensor(0.3))
    torch.testing.assert_close(found, (x0, eps))
