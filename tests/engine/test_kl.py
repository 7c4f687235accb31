"""KL to the model that training starts from: the gradient of E[R] - β E[Σ KL_i], whatever estimates it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.base import registry
from bench.base.errors import BenchError
from bench.engine.batch import Batch, MicroBatch, Perturbation
from bench.engine.chain import gaussian_log_prob
from bench.engine.engine import Engine
from bench.engine.kl import to_go
from bench.engine.likelihood_ratio import Ppo
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.measure.gradients.probe import profile
from bench.measure.gradients.verdict import Verdict
from tests.support import fast_streams
from tests.support.pipelines import image_chain
from tests.support.statistics import compare, first_update
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, engine_of, fill, gradient

STEPS, KL = 5, 0.7
FO, HO, ZO = Kind.FO, Kind.HO, Kind.ZO
PLANS = {
    "noise everywhere": tiled([FO] * STEPS, [1.0] * STEPS),
    "noise here and there": tiled([FO] * STEPS, [0.0, 1.0, 0.0, 0.5, 0.0]),
    "weights": Plan((Segment(FO, 0, 2, 2.0), Segment(FO, 2, STEPS, 0.5)), (0.5,) * STEPS),
}


def toy(multistep: float = 0.0) -> ToyChain:
    """The toy chain, away from where training started."""
    chain = ToyChain(STEPS, 2, noise=0.6, multistep=multistep)
    with torch.no_grad():
        chain.weight.add_(0.3 * torch.randn(2, 2, generator=torch.Generator().manual_seed(5)))
    return chain


@contextmanager
def weighted(chain: Any, weight: float) -> Iterator[None]:
    """Within the context the chain's parameter is the same, and counts so many times in gradients."""
    own = chain.weight
    chain.weight = weight * own + (1 - weight) * own.detach()
    try:
        yield
    finally:
        chain.weight = own


def step_kls(
    chain: ToyChain,
    engine: Engine,
    micro: MicroBatch,
    xs: list[Tensor] | None = None,
    weights: Sequence[float] = (1.0,) * STEPS,
) -> Any:
    """(log-probabilities, KL) [B, T] and x_0 of the rollout's own noise, differentiable; xs: fixed x_i.

    weights: what each step's parameters count in gradients.
    """
    rows = list(range(len(micro.index)))
    state = chain.prior(engine.roller.noise(micro, -1, rows))
    kls, logs = [], []
    for i in range(chain.steps):
        state = state.reset([row[i] for row in micro.resets])
        if xs is not None:
            state = micro.states[i]
        with weighted(chain, weights[i]):
            step = chain.transition(state, i, micro.cond, micro.eta[:, i])
        with chain.reference():
            reference = chain.transition(state, i, micro.cond, micro.eta[:, i]).mean
        noisy = float(micro.eta[0, i]) > 0
        away = (step.mean - reference).square().sum(1) / 2
        kls.append(away / step.std[:, 0] ** 2 if noisy else torch.zeros(len(rows)))
        if xs is not None and noisy:
            logs.append(gaussian_log_prob(micro.states[i + 1].x, step.mean, step.std))
        x = step.mean + step.std * engine.roller.noise(micro, i, rows) if noisy else step.mean
        state = step.next_state(x)
    return (torch.stack(logs, 1) if logs else None), torch.stack(kls, 1), state.x


@pytest.mark.parametrize("multistep", [0.0, 0.4])
@pytest.mark.parametrize("name", PLANS)
def test_first_order_gradient_is_autograds_of_the_whole_objective(name: str, multistep: float) -> None:
    chain = toy(multistep)
    engine, plan = engine_of(chain, kl=KL), PLANS[name]
    trajectory = engine.rollout([plan] * 6, batch_of(6))
    (micro,) = trajectory.micros
    assert trajectory.kl is not None

    def by_autograd(weights: list[float]) -> Tensor:
        _, kls, x0 = step_kls(chain, engine, micro, weights=weights)
        torch.testing.assert_close(trajectory.kl, kls.detach())
        objective = (Bowl().score(x0, micro.prompts) - KL * kls.sum(1)).mean()
        return torch.autograd.grad(objective, [chain.weight])[0].flatten()

    expected = by_autograd([plan.segment_at(i).weight for i in range(STEPS)])
    pathwise = engine.pathwise(trajectory)
    report = engine.gradient(trajectory, trajectory.signed)
    torch.testing.assert_close(gradient(chain), expected)
    torch.testing.assert_close(pathwise, by_autograd([1.0] * STEPS))
    assert report.kl == pytest.approx(float(trajectory.kl.sum(1).mean()))
    without = engine_of(chain)
    without.gradient(without.rollout([plan] * 6, batch_of(6)), trajectory.signed)
    assert not torch.allclose(gradient(chain), expected, rtol=0.05)


def test_detached_inputs_leave_the_kl_of_a_trained_step_at_fixed_x() -> None:
    chain = toy()
    engine, kinds = engine_of(chain, kl=KL), [Kind.SKIP, Kind.DI, Kind.PASS, Kind.DI, Kind.DI]
    trajectory = engine.rollout([tiled(kinds, [1.0] * STEPS)] * 6, batch_of(6))
    (micro,) = trajectory.micros
    state, kls = micro.states[1], []
    for i in range(1, STEPS):
        step = chain.transition(state, i, micro.cond, micro.eta[:, i], kinds[i] is Kind.PASS, True)
        with chain.reference():
            reference = chain.transition(state, i, micro.cond, micro.eta[:, i], False, True).mean
        kls.append((step.mean - reference).square().sum(1) / (2 * step.std[:, 0] ** 2))
        state = step.next_state(step.mean + step.std * engine.roller.noise(micro, i, list(range(6))))
    objective = (Bowl().score(state.x, micro.prompts) - KL * torch.stack(kls, 1).sum(1)).mean()
    (expected,) = torch.autograd.grad(objective, [chain.weight])
    engine.gradient(trajectory, trajectory.signed)
    torch.testing.assert_close(gradient(chain), expected.flatten())


@pytest.mark.parametrize("mean", [None, False, True])
def test_half_order_gradient_is_kl_at_fixed_x_beside_the_likelihood_ratio_of_what_comes_after(
    mean: bool | None,
) -> None:
    chain = toy()
    engine = engine_of(chain, kl=KL)
    trajectory = engine.rollout([tiled([HO] * STEPS, [1.0] * STEPS)] * 6, batch_of(6))
    (micro,) = trajectory.micros
    advantages = torch.tensor([1.5, -0.5, -2.0, 1.0, 0.3, -0.3])
    logs, kls, _ = step_kls(chain, engine, micro, [s.x for s in micro.states])
    later = torch.stack([kls[:, i + 1 :].sum(1) for i in range(STEPS)], 1).detach()
    others = (later.sum(0) - later) / 5
    weighted = (advantages[:, None] - KL * (later - others)) * logs - KL * kls
    (expected,) = torch.autograd.grad(weighted.sum(1).mean(), [chain.weight])
    report = engine.gradient(trajectory, advantages, ppo=None if mean is None else Ppo(0.2, mean))
    torch.testing.assert_close(gradient(chain), expected.flatten() / (2 if mean else 1))
    assert report.backward == 6 * STEPS  # nothing goes on, so nothing goes back through the reference
    assert report.forward == 2 * 6 * STEPS


def test_kl_to_go_is_what_comes_from_a_step_on_less_the_others_mean() -> None:
    engine = engine_of(toy(), kl=KL)
    trajectory = engine.rollout([tiled([HO] * STEPS, [1.0] * STEPS)] * 4, batch_of(4))
    assert trajectory.kl is not None
    found = to_go(trajectory)
    assert found.shape == (4, STEPS + 1) and not found[:, -1].any()
    for i in range(STEPS):
        rest = trajectory.kl[:, i:].sum(1)
        torch.testing.assert_close(found[:, i], rest - (rest.sum() - rest) / 3)
    alone = engine.rollout([tiled([HO] * STEPS, [1.0] * STEPS)], batch_of(1))
    assert alone.kl is not None
    torch.testing.assert_close(to_go(alone)[:, 0], alone.kl.sum(1))


CASES: list[tuple[str, dict[str, Any]]] = [
    ("full_bp", {"eta": 1.0}),
    ("reinforce", {}),
    ("reinforce", {"drawn": 2}),
    ("zo", {"eta": 1.0, "scale": 0.3}),
    ("zo", {"eta": 1.0, "scale": 0.3, "shared": True, "antithetic": True}),
    ("rlr", {"h": 2, "eta": 1.0, "scale": 0.3}),
    ("rlr", {"h": 2, "eta": 1.0, "completion": "resampled", "mirrored": True}),
    ("rlr", {"h": 1, "eta": 1.0, "completion": "resampled", "drawn": 2, "control": "network"}),
    ("truncated-bp-weighted", {"eta": 1.0}),
    ("grpo", {"baseline": "loo_prompt", "divide": "none", "log_prob": "sum", "advantage_clamp": None,
              "clip": 0.5, "common_noise": True, "step_fraction": 0.6}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_what_is_unbiased_is_so_for_the_regularised_objective(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    cls = registry.load("method", name)
    method = cls(cls.Config.model_validate(settings), STEPS)
    assert not method.biased
    chain = ToyChain(STEPS, 1, noise=0.7)
    with torch.no_grad():
        chain.weight.add_(0.5)
    result = compare(engine_of(chain, micro_batch=512, kl=KL), first_update(method), batches=24, size=512)
    assert result.agrees, (result.bias, result.relative_error)
    assert result.relative_error < 0.15


@pytest.mark.slow
def test_a_verdict_is_about_the_regularised_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    cls = registry.load("method", "reinforce")
    chain = ToyChain(STEPS, 1, noise=0.7)
    with torch.no_grad():
        chain.weight.add_(0.5)
    found = profile(
        cls(cls.Config(), STEPS), chain, Bowl(), prompts="abcdefgh", batch=2048, draws=24, margin=0.2, kl=KL
    )
    assert found.own.verdict is Verdict.UNBIASED, found.own.relative


def test_without_noise_there_is_no_kl_and_the_message_says_what_to_set() -> None:
    for plan in (tiled([FO] * STEPS, [0.0] * STEPS), tiled([ZO] * STEPS, [0.0] * STEPS)):
        with pytest.raises(
            BenchError, match=r"train\.kl is the KL between chains with noise.*eta.*train\.kl=0"
        ):
            engine_of(toy(), kl=KL).rollout([plan] * 2, batch_of(2))
    quiet = ToyChain(STEPS, 2, noise=0.0)
    with pytest.raises(BenchError, match=r"train\.kl is the KL"):
        engine_of(quiet, kl=KL).rollout([tiled([FO] * STEPS, [1.0] * STEPS)] * 2, batch_of(2))


@pytest.mark.parametrize("kinds", [[Kind.REF] * STEPS, [Kind.REF] * (STEPS - 1) + [Kind.AM]])
def test_steps_through_the_reference_model_take_no_kl_term(kinds: list[Kind]) -> None:
    with pytest.raises(BenchError, match=r"adjoint matching has the KL in its own objective.*train\.kl=0"):
        engine_of(toy(), kl=KL).rollout([tiled(kinds, [1.0] * STEPS)] * 2, batch_of(2))


class FromBefore:
    """A chain without `reference`."""

    def __init__(self, chain: ToyChain) -> None:
        self.chain = chain

    def __getattr__(self, name: str) -> Any:
        if name == "reference":
            raise AttributeError(name)
        return getattr(self.chain, name)


@pytest.mark.parametrize("name", ["full_bp", "adjoint_matching", "nft", "awm"])
def test_chain_that_cannot_run_without_its_adapter_is_told_what_it_lacks(name: str) -> None:
    cls = registry.load("method", name)
    method = cls(cls.Config.model_validate({"eta": 1.0} if name == "full_bp" else {}), STEPS)
    chain: Any = FromBefore(toy())
    engine = engine_of(chain, kl=KL if name == "full_bp" else 0.0)
    with pytest.raises(
        BenchError, match=r"FromBefore has no method reference\(\), .* its adapter: train\.kl"
    ):
        list(method.updates(engine, Batch(("a", "a", "b", "b"), 0)))


def test_where_training_starts_there_is_nothing_to_pay() -> None:
    chain = ToyChain(STEPS, 2)
    found = []
    for kl in (0.0, KL):
        engine = engine_of(chain, kl=kl)
        trajectory = engine.rollout([tiled([HO] * STEPS, [1.0] * STEPS)] * 4, batch_of(4))
        report = engine.gradient(trajectory, trajectory.signed)
        found.append(gradient(chain))
        assert report.kl == (0.0 if kl else None)
    torch.testing.assert_close(*found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full_bp", "rlr", "grpo", "zo"])
def test_micro_batches_and_kept_graphs_change_nothing(name: str) -> None:
    settings = {"full_bp": {"eta": 1.0}, "rlr": {"h": 2, "scale": 0.3}, "grpo": {}, "zo": {"eta": 1.0}}[name]
    cls = registry.load("method", name)
    method = cls(cls.Config.model_validate(settings), 4)
    found = []
    for options in ({"micro_batch": 4}, {"micro_batch": 2}, {"micro_batch": 4, "graphs": "auto"}):
        chain = image_chain(steps=4)
        fill(chain, 0.05)
        engine = engine_of(chain, Pattern(), kl=0.01, **options)
        (report,) = method.updates(engine, batch_of(4))
        assert report.kl is not None and report.kl > 0
        found.append(gradient(chain))
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=2e-3 * float(found[0].abs().max()))


@pytest.mark.slow
def test_float16_gives_float32s_gradient() -> None:
    found = {}
    for dtype in ("float32", "float16"):
        chain = image_chain(dtype=dtype, steps=3)
        fill(chain, 0.05)
        engine = engine_of(chain, Pattern(), kl=0.01)
        trajectory = engine.rollout([tiled([FO] * 3, [1.0] * 3)] * 2, batch_of(2))
        engine.gradient(trajectory, trajectory.signed)
        found[dtype] = gradient(chain).double()
    a, b = found.values()
    assert float((a - b).norm() / a.norm()) < 0.05


def test_a_pair_enters_neither_ones_mean() -> None:
    engine = engine_of(toy(), kl=KL)
    plans = [tiled([HO] * STEPS, [1.0] * STEPS)] * 4
    batch = Batch(("a", "a", "b", "b"), 0)
    trajectory = engine.rollout(plans, batch, Perturbation(mirrored=True))
    assert trajectory.kl is not None
    whole = trajectory.kl.sum(1)
    expected = whole - torch.stack([whole[2:].mean()] * 2 + [whole[:2].mean()] * 2)
    torch.testing.assert_close(to_go(trajectory)[:, 0], expected)
