"""The closed form against autograd and Monte Carlo, and the chain against its protocol."""

import pytest
import torch

import bench.engine.rollout
from bench.engine.batch import Batch, Perturbation
from bench.engine.chain import Chain, State
from bench.engine.engine import Engine
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator
from examples import measure
from examples.linear_gaussian import (
    LinearGaussianChain,
    QuadraticReward,
    exact_contributions,
    exact_gradient,
    exact_objective,
    parameters_of,
)
from examples.measure import Inline
from tests.support import fast_streams

STEPS = 4
ETA = (0.5, 0.0, 1.0, 0.3)


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("scale", [0.0, 0.4])
def test_exact_objective_and_gradient_agree_with_monte_carlo(dim: int, scale: float) -> None:
    """Pathwise gradients with the perturbations held fixed, whole chain."""
    chain, reward = LinearGaussianChain(STEPS, dim), QuadraticReward([1.0, -1.0][:dim])
    kind = Kind.ZO if scale else Kind.SKIP
    plan = Plan((Segment(kind, 0, STEPS - 1), Segment(Kind.FO, STEPS - 1, STEPS)), ETA)
    engine, pert = Engine(chain, reward, seed=0, micro_batch=512), Perturbation(scale=scale or 1.0)
    rewards, gradients = [], []
    for step in range(40):
        trajectory = engine.rollout([plan] * 512, Batch(("",) * 512, step), pert)
        rewards.append(trajectory.rewards.double().mean())
        gradients.append(engine.pathwise(trajectory).double())
    scales = measure.scales(plan, scale)
    theta = parameters_of(chain).expand(STEPS, -1)
    value = float(exact_objective(chain, reward, theta, ETA, scales))
    assert measure.mean(torch.stack(rewards)).sigmas_from(value) < 3
    bias = measure.bias(torch.stack(gradients), exact_gradient(chain, reward, ETA, scales))
    assert not bias.found
    assert bias.relative.error < 0.03


def test_exact_gradient_is_that_of_the_objective_in_shared_parameters() -> None:
    chain, reward = LinearGaussianChain(STEPS, 2), QuadraticReward([1.0, -1.0])
    theta = parameters_of(chain).requires_grad_()
    value = exact_objective(chain, reward, theta.expand(STEPS, -1), ETA)
    assert torch.allclose(torch.autograd.grad(value, theta)[0], exact_gradient(chain, reward, ETA))
    assert exact_contributions(chain, reward, ETA).shape == (STEPS, 6)


def test_exact_objective_takes_many_parameters_at_once() -> None:
    chain, reward = LinearGaussianChain(STEPS, 2), QuadraticReward([1.0, -1.0])
    theta = torch.randn(5, STEPS, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = [0.1] * STEPS
    together = exact_objective(chain, reward, theta, ETA, scale)
    assert torch.allclose(
        together, torch.stack([exact_objective(chain, reward, t, ETA, scale) for t in theta])
    )


def test_prediction_is_the_mean_of_the_end_given_the_state() -> None:
    """At the last step it is the transition's mean; before, the average over what noise may still come."""
    chain = LinearGaussianChain(STEPS, 2)
    cond, x = chain.condition([""]), torch.tensor([[0.3, -1.0]])
    last = chain.transition(State(x), STEPS - 1, cond, torch.ones(1)).mean
    assert torch.allclose(chain.predict_x0(State(x), STEPS - 1, cond), last)
    generator, state = torch.Generator().manual_seed(0), State(x.expand(20_000, -1))
    for i in range(1, STEPS):
        step = chain.transition(state, i, cond, torch.ones(20_000))
        state = State(step.mean + step.std * torch.randn(20_000, 2, generator=generator))
    bias = measure.bias(state.x.detach().double(), chain.predict_x0(State(x), 1, cond)[0].detach().double())
    assert not bias.found


def test_row_of_a_perturbed_batch_runs_with_its_own_parameters() -> None:
    chain: Chain = LinearGaussianChain(STEPS, 2)
    generator = torch.Generator().manual_seed(0)
    delta, x = torch.randn(3, 6, generator=generator), torch.randn(3, 2, generator=generator)
    cond, eta = chain.condition([""] * 3), torch.zeros(3)
    with chain.perturbed(delta):
        together = chain.transition(State(x), 1, cond, eta).mean
    for b in range(3):
        moved = LinearGaussianChain(STEPS, 2)
        with torch.no_grad():
            moved.weight.add_(delta[b, :4].view(2, 2))
            moved.drift.add_(delta[b, 4:])
        alone = moved.transition(State(x[b : b + 1]), 1, cond, eta[:1]).mean
        assert torch.allclose(together[b : b + 1], alone, atol=1e-6)


def test_x_path_only_cuts_the_parameters_and_keeps_the_chains_own_coefficients() -> None:
    chain = LinearGaussianChain(STEPS, 1)
    x = torch.ones(1, 1, requires_grad=True)
    mean = chain.transition(State(x), 1, chain.condition([""]), torch.zeros(1), x_path_only=True).mean
    assert float(torch.autograd.grad(mean, x)[0]) == pytest.approx(float(chain.a[1]))


@pytest.mark.slow
def test_inline_estimator_is_a_method_in_three_lines() -> None:
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    plan = Plan((Segment(Kind.FO, 0, STEPS),), ETA)
    update = measure.first_update(Inline(lambda rng: plan, STEPS, Estimator(one_plan=True)))
    found = measure.batch_gradients(chain, reward, update, batches=16, size=512, seed=0)
    assert not measure.bias(found, exact_gradient(chain, reward, ETA)).found
