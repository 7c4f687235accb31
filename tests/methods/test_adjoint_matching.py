"""Adjoint matching: its gradient against autograd, where it comes to rest, and what its noise has to be."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.adjoint_matching import Matching
from bench.engine.batch import Trajectory
from bench.engine.chain import Chain, State
from bench.engine.engine import Engine
from bench.engine.plan import Kind, Plan
from bench.engine.reward import Reward
from bench.experiment import checks
from bench.experiment.settings import ModelChoice
from bench.models.config import ModelConfig
from bench.models.flow_solvers import flow_sde_transition
from bench.models.solvers import ddim_transition
from examples.linear_gaussian import QuadraticReward
from methods.adjoint_matching import AdjointMatching, AdjointMatchingConfig
from methods.full_bp import FullBp, FullBpConfig
from tests.models.test_flow_chain import chain_of
from tests.support.pipelines import image_chain
from tests.support.saved import saved_bytes
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, engine_of, fill, flat, gradient

AM, REF, SKIP = Kind.AM, Kind.REF, Kind.SKIP


def method(steps: int, **settings: Any) -> AdjointMatching:
    """With all steps trained, unless the settings say otherwise."""
    return AdjointMatching(AdjointMatchingConfig(**{"last": 1.0, **settings}), steps)


def toy() -> ToyChain:
    """Four steps in two dimensions."""
    return ToyChain(4, 2, noise=0.7)


def rolled_out(engine: Engine, made: AdjointMatching, samples: int = 4) -> tuple[Trajectory, Plan]:
    """One rollout of the method's plan, its gradient in `.grad`."""
    plan = made.plan(random.Random(0))
    trajectory = engine.rollout([plan] * samples, batch_of(samples))
    engine.gradient(trajectory, torch.zeros(samples), matching=made.estimator().matching)
    return trajectory, plan


def by_autograd(engine: Engine, trajectory: Trajectory, plan: Plan, matching: Matching) -> Tensor:
    """The ascent direction of -Σ_i |u_i - λ std a_{i+1}|² / 2λ with x_i and a held fixed, batch mean."""
    chain, scale = engine.chain, matching.reward_scale
    total = torch.zeros(sum(p.numel() for p in chain.parameters()))
    for micro in trajectory.micros:
        x0 = micro.states[-1].x.detach().clone().requires_grad_()
        score = engine.reward.score(chain.decode(x0), micro.prompts)
        (adjoint,) = torch.autograd.grad(score.sum(), x0)
        for i in reversed(range(plan.steps)):
            if plan.segment_at(i).kind is SKIP:
                break
            x = micro.states[i].x.detach().clone().requires_grad_()
            with chain.reference():
                reference = chain.transition(State(x), i, micro.cond, micro.eta[:, i]).mean
                (earlier,) = torch.autograd.grad(reference, x, adjoint)
            if plan.segment_at(i).kind is AM:
                step = chain.transition(State(x.detach()), i, micro.cond, micro.eta[:, i])
                control = (step.mean - reference.detach()) / step.std
                each = (control - scale * step.std * adjoint).square().flatten(1).sum(1)
                if matching.clip is not None:
                    each = each * (each.detach() <= matching.clip * scale**2)
                loss = each.sum() / (2 * scale)
                total -= flat(torch.autograd.grad(loss, chain.parameters()))
            adjoint = earlier
    return total / sum(len(micro.index) for micro in trajectory.micros)


CHAINS = {
    "toy": (toy, Bowl(), 1.0),
    "flow": (lambda: chain_of("flow_sde"), QuadraticReward([0.5, -1.0]), 1.4142),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    "settings", [{}, {"last": 0.3, "drawn": 0.25}, {"reward_scale": 0.5, "clip": 2.0}], ids=str
)
def test_gradient_is_that_of_the_regression(name: str, settings: dict[str, Any]) -> None:
    make, reward, eta = CHAINS[name]
    chain: Any = make()
    fill(chain, 0.6)
    made = method(chain.steps, **{"reward_scale": 3.0, "eta": eta, **settings})
    engine = engine_of(chain, reward, micro_batch=3)
    trajectory, plan = rolled_out(engine, made, 6)
    matching = made.estimator().matching
    assert matching is not None
    expected = by_autograd(engine, trajectory, plan, matching)
    torch.testing.assert_close(gradient(chain), expected, rtol=1e-4, atol=1e-5)
    if matching.clip is not None:
        whole = by_autograd(engine, trajectory, plan, Matching(matching.reward_scale))
        assert float((whole - expected).norm()) > 0.1 * float(expected.norm())  # some were left out


@pytest.mark.slow
def test_gradient_is_that_of_the_regression_on_the_image_chain() -> None:
    chain = image_chain(steps=4)
    fill(chain, 0.05)
    made = method(4, last=0.5, drawn=0.25)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    trajectory, plan = rolled_out(engine, made)
    matching = made.estimator().matching
    assert matching is not None
    expected = by_autograd(engine, trajectory, plan, matching)
    assert float((gradient(chain) - expected).norm() / expected.norm()) < 1e-4


def first(made: Any, chain: Chain, reward: Reward) -> tuple[Tensor, Any]:
    """The first gradient, and its report."""
    report = next(iter(made.updates(engine_of(chain, reward), batch_of(4))))
    return gradient(chain), report


@pytest.mark.parametrize("name", CHAINS)
def test_at_the_start_of_training_it_is_full_backpropagation_whatever_the_scale(name: str) -> None:
    make, reward, eta = CHAINS[name]
    chain: Any = make()
    expected, _ = first(FullBp(FullBpConfig(eta=eta), 4), chain, reward)
    for scale in (0.1, 100.0):
        found, report = first(method(4, eta=eta, reward_scale=scale), chain, reward)
        torch.testing.assert_close(found, expected)
        # Rollout and reference; the reference's step 0 hands nothing on; no network graph was there before.
        assert (report.forward, report.backward, report.again) == (4 * 8, 4 * 7, 4 * 4)


def test_plan_trains_the_last_steps_and_some_that_are_drawn_before_them() -> None:
    rng, made = random.Random(0), method(20, last=0.25, drawn=0.25)
    seen = set[int]()
    for _ in range(100):
        plan = made.plan(rng)
        kinds = [plan.segment_at(i).kind for i in range(20)]
        trained = [i for i, kind in enumerate(kinds) if kind is AM]
        assert trained[-5:] == [15, 16, 17, 18, 19] and len(trained) == 10
        assert kinds[: trained[0]] == [SKIP] * trained[0]
        assert {*kinds[trained[0] :]} <= {AM, REF}
        seen.update(trained)
    assert seen == set(range(20))
    assert made.estimator().one_plan
    whole = method(20).plan(rng)
    assert [s.kind for s in whole.segments] == [AM] and whole.eta == (1.0,) * 20
    few = method(2, last=0.1, drawn=1.0).plan(rng)
    assert [s.kind for s in few.segments] == [AM]


@pytest.mark.slow
def test_memory_is_one_networks_graph_however_long_the_chain() -> None:
    peaks = []
    for steps in (3, 6):
        engine = engine_of(image_chain(steps=steps), Pattern())
        plan = method(steps).plan(random.Random(0))
        trajectory = engine.rollout([plan] * 2, batch_of(2))
        with saved_bytes() as meter:
            engine.gradient(trajectory, torch.zeros(2), matching=Matching())
            assert meter["now"] == 0
        peaks.append(meter["peak"])
    assert peaks[1] <= 1.01 * peaks[0]


def correlation(solver: str, eta: float, steps: int = 50) -> float:
    """Of x_T and x_0 where the data are N(0, 0.5²) and the network is exact: every step is linear."""
    one, noise, slope, variance = torch.ones(1, 1), torch.tensor([eta]), 1.0, 1.0
    if solver == "ddim":  # Stable Diffusion's
        alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
        levels = alphas[1 :: 1000 // steps].flip(0)
        ends = torch.cat([levels[1:], alphas[:1]])
    else:
        sigma = torch.linspace(1, 0, steps + 1)
        levels, ends = sigma[:-1], sigma[1:]
    for level, end in zip(levels, ends, strict=True):
        alpha = level.sqrt() if solver == "ddim" else 1 - level
        beta = (1 - level).sqrt() if solver == "ddim" else level
        total = alpha**2 * 0.25 + beta**2
        x0, eps = one * alpha * 0.25 / total, one * beta / total  # E[· | x = 1]
        if solver == "ddim":
            step = ddim_transition(x0, eps, level, end, noise)
        else:
            step = flow_sde_transition(one, eps - x0, level, end, noise)
        factor = float(step.mean)
        slope, variance = slope * factor, variance * factor**2 + float(step.std) ** 2
    return slope / variance**0.5


@pytest.mark.parametrize(("solver", "eta"), checks.MEMORYLESS.items())
def test_where_noise_is_memoryless_the_picture_does_not_know_its_noise(solver: str, eta: float) -> None:
    assert correlation(solver, 0.0) > 0.99
    assert correlation(solver, 0.5 * eta) > 0.15
    assert abs(correlation(solver, eta)) < 0.05  # ᾱ of Stable Diffusion's x_T is 0.005, not 0


@pytest.mark.parametrize(
    ("solver", "eta", "message"),
    [
        ("dpmpp", 1.0, r"model\.solver: method 'adjoint_matching'.*dpmpp has not.*model\.solver=ddim"),
        ("flow_cps", 1.0, r"flow_cps has not.*model\.solver=flow_sde"),
        ("ddim", 0.5, r"adjoint_matching\.eta is 0\.5.*--set adjoint_matching\.eta=1$"),
        ("flow_sde", 1.0, r"adjoint_matching\.eta is 1,.*--set adjoint_matching\.eta=1\.4142$"),
        ("flow_sde", 1.4142, None),
        ("ddim", 1.0, None),
    ],
)
def test_noise_that_is_not_memoryless_is_refused_with_what_to_set(
    solver: Any, eta: float, message: str | None
) -> None:
    model = ModelChoice(name="any", config=ModelConfig(source="embedded:sd", solver=solver))
    config = AdjointMatchingConfig(eta=eta)
    checks.check_memoryless("full_bp", FullBpConfig(eta=eta), model)
    if message is None:
        checks.check_memoryless("adjoint_matching", config, model)
        return
    with pytest.raises(BenchError, match=message):
        checks.check_memoryless("adjoint_matching", config, model)


def test_steps_that_match_nothing_say_so() -> None:
    engine = engine_of(toy())
    plan = method(4).plan(random.Random(0))
    with pytest.raises(ValueError, match="what they match"):
        engine.gradient(engine.rollout([plan] * 2, batch_of(2)), torch.zeros(2))


@pytest.mark.slow
def test_a_last_step_without_noise_is_refused() -> None:
    engine = engine_of(image_chain(set_alpha_to_one=True, steps=2), Pattern())
    with pytest.raises(BenchError, match=r"step 1 of 2 injects no noise.*set_alpha_to_one=False"):
        engine.rollout([method(2).plan(random.Random(0))] * 2, batch_of(2))
