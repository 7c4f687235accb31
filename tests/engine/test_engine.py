"""What a gradient must not depend on, and what its report says."""

from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.base import registry
from bench.base.errors import BenchError
from bench.engine.batch import Perturbation, Report
from bench.engine.chain import Chain
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from methods.full_bp import FullBp, FullBpConfig
from methods.rlr import Rlr, RlrConfig
from methods.zo import Zo, ZoConfig
from tests.support import fast_streams
from tests.support.pipelines import image_chain
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Distance, Pattern, batch_of, engine_of, gradient

LOUD = {"k": 2, "eta": 1.0, "scale": 0.3}
METHODS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in registry.own("method")),
    ("rlr", {"start": "norms", "completion": "resampled"}),
    ("rlr", {"start": "norms", "antithetic": True, "shared": True}),
    ("ddpo", {"minibatches": 2, "inner_epochs": 2, "clip": 0.2}),
    ("alignprop", {"truncation": "mask"}),
]


def make(name: str, settings: dict[str, Any], steps: int) -> Method:
    """A method with large noise where it has any."""
    cls = registry.load("method", name)
    loud = {k: v for k, v in LOUD.items() if k in cls.Config.model_fields}
    return cls(cls.Config.model_validate(loud | settings), steps)


def train(method: Method, chain: Chain, micro_batch: int, reward: Any) -> tuple[list[Tensor], list[Report]]:
    """Gradients and reports of three batches, the parameters moving a little after each."""
    engine = engine_of(chain, reward, micro_batch=micro_batch)
    gradients, reports = [], []
    for step in range(3):
        for report in method.updates(engine, batch_of(8, step)):
            gradients.append(gradient(chain))
            reports.append(report)
            with torch.no_grad():
                for p in chain.parameters():
                    assert p.grad is not None
                    p -= 0.01 * p.grad / p.grad.norm().clamp(min=1)
    return gradients, reports


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), METHODS, ids=str)
def test_micro_batch_size_changes_neither_gradients_nor_rewards(name: str, settings: dict[str, Any]) -> None:
    runs = {
        size: train(make(name, settings, 4), ToyChain(4, 2, noise=0.7), size, Bowl()) for size in (8, 3, 1)
    }
    for size in (3, 1):
        for found, expected in zip(runs[size][0], runs[8][0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        for found, expected in zip(runs[size][1], runs[8][1], strict=True):
            torch.testing.assert_close(found.rewards, expected.rewards)
            assert found.forward == expected.forward
            assert found.backward == expected.backward
            assert found.half_order_norms == pytest.approx(expected.half_order_norms, rel=1e-3)
            assert found.terms.keys() == expected.terms.keys()


@pytest.mark.slow
def test_micro_batch_size_changes_no_gradient_of_the_image_chain() -> None:
    gradients = []
    for size, chunk in ((4, None), (3, 1)):
        chain = image_chain(steps=3)
        engine = engine_of(chain, Pattern(), micro_batch=size, reward_chunk=chunk)
        next(iter(make("rlr", {"h": 1}, 3).updates(engine, batch_of(4))))
        gradients.append(gradient(chain))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-4


@pytest.mark.parametrize("kind", [Kind.FO, Kind.HO, Kind.ZO])
def test_included_samples_alone_make_the_gradient(kind: Kind) -> None:
    chain = ToyChain(3, 2, noise=0.7)
    engine = engine_of(chain, micro_batch=2)
    trajectory = engine.rollout([Plan((Segment(kind, 0, 3),), (0, 0, 1))] * 6, batch_of(6))
    parts = []
    for b in range(6):
        only = torch.zeros(6, dtype=torch.bool)
        only[b] = True
        engine.gradient(trajectory, trajectory.signed, include=only)
        parts.append(gradient(chain))
    some = torch.tensor([True, False, False, True, True, False])
    engine.gradient(trajectory, trajectory.signed, include=some)
    torch.testing.assert_close(gradient(chain), (parts[0] + parts[3] + parts[4]) / 3)
    engine.gradient(trajectory, trajectory.signed)
    torch.testing.assert_close(gradient(chain), sum(parts) / 6)


def test_reward_where_lower_is_better_is_reported_raw_and_minimised() -> None:
    found = {}
    for higher, reward in ((True, Pattern()), (False, Distance())):
        chain = ToyChain(3, 12, noise=0.7)
        engine = engine_of(chain, reward)
        report = next(iter(make("rlr", {"h": 1, "baseline": "loo"}, 3).updates(engine, batch_of(4))))
        found[higher] = (gradient(chain), report.rewards)
    torch.testing.assert_close(found[True][0], -found[False][0])
    assert torch.equal(found[True][1], found[False][1])


def test_gradient_steps_uphill() -> None:
    chain = ToyChain(3, 2)
    engine = engine_of(chain)
    before = next(iter(make("full_bp", {}, 3).updates(engine, batch_of(16)))).rewards.mean()
    with torch.no_grad():
        for p in chain.parameters():
            assert p.grad is not None
            p -= 0.01 * p.grad
    after = next(iter(make("full_bp", {}, 3).updates(engine, batch_of(16)))).rewards.mean()
    assert after > before


@pytest.mark.slow
def test_report_counts_evaluations_and_gives_every_terms_norm() -> None:
    chain = image_chain(steps=4)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    plan = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 3), Segment(Kind.FO, 3, 4)), (0, 0, 1, 0))
    trajectory = engine.rollout([plan] * 4, batch_of(4), Perturbation(scale=0.1))
    advantage = trajectory.signed - trajectory.signed.mean()
    report = engine.gradient(trajectory, advantage)
    assert (report.forward, report.backward) == (4 * 4 * 2, 4 * 3 * 2)  # two halves of guidance
    parts = {}
    for kind in (Kind.FO, Kind.HO, Kind.ZO):
        weights = {k: float(k is kind) for k in (Kind.FO, Kind.HO, Kind.ZO)}
        engine.gradient(trajectory, advantage, weights=weights)
        parts[kind] = gradient(chain)
        assert report.terms[kind.value.lower()].norm == pytest.approx(float(parts[kind].norm()), rel=1e-4)
    weights = {Kind.FO: 2.0, Kind.HO: -0.5, Kind.ZO: 3.0}
    engine.gradient(trajectory, advantage, weights=weights)
    expected = sum(weights[k] * parts[k] for k in weights)
    torch.testing.assert_close(gradient(chain), expected, rtol=1e-4, atol=1e-4)


def test_half_order_norms_are_those_of_single_samples_without_their_weight() -> None:
    chain = ToyChain(3, 2, noise=0.7)
    engine = engine_of(chain, micro_batch=4)
    plan = Plan((Segment(Kind.HO, 0, 2, 5.0), Segment(Kind.SKIP, 2, 3)), (0, 1, 0))
    trajectory = engine.rollout([plan] * 6, batch_of(6))
    report = engine.gradient(trajectory, trajectory.signed, half_order_norms=True)
    squares = torch.zeros(2)
    for b in range(6):
        only = torch.arange(6) == b
        alone = engine.gradient(trajectory, trajectory.signed, include=only, half_order_norms=True)
        squares += torch.tensor([alone.half_order_norms[i] ** 2 for i in (0, 1)])
        assert alone.terms["ho"].norm <= 5 * sum(alone.half_order_norms.values()) + 1e-4
    expected = (squares / 6).sqrt().tolist()
    assert [report.half_order_norms[i] for i in (0, 1)] == pytest.approx(expected)
    assert engine.gradient(trajectory, trajectory.signed).half_order_norms == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        FullBp(FullBpConfig(eta=1.0), 3),
        Zo(ZoConfig(scale=0.5, antithetic=False), 3),
        Rlr(RlrConfig(h=1, eta=1.0, completion="resampled", fo=False), 3),
    ],
    ids=["fo", "zo", "ho"],
)
def test_reported_variance_is_the_variance_of_the_gradient(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 batches: the standard error of either variance is some 10 to 15 %."""
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    chain = ToyChain(3, 1, noise=0.7)
    engine = engine_of(chain, micro_batch=32)
    gradients, reported = [], []
    for step in range(200):
        (report,) = method.updates(engine, batch_of(64, step))
        (term,) = report.terms.values()
        assert term.variance is not None
        gradients.append(gradient(chain))
        reported.append(term.variance)
    empirical = float(torch.stack(gradients).double().var(0).sum())
    assert sum(reported) / 200 == pytest.approx(empirical, rel=0.35)


def test_variance_needs_two_micro_batches() -> None:
    report = next(iter(make("zo", {}, 3).updates(engine_of(ToyChain(3, 1)), batch_of(8))))
    assert report.terms["zo"].variance is None


def test_antithetic_partners_with_different_prompts_are_an_error_that_says_what_to_do() -> None:
    engine = engine_of(ToyChain(2, 1))
    batch = type(batch_of(2))(("a", "b"), 0)
    with pytest.raises(BenchError, match=r"samples_per_prompt even"):
        next(iter(make("zo", {"antithetic": True}, 2).updates(engine, batch)))
