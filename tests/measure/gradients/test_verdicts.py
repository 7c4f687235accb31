"""Verdicts on a chain whose gradient has a closed form: every honest method passes, every wrong one does not.

The linear-Gaussian chain of examples/ with large noise, so that the margin takes seconds: less than the share
of any one step in the gradient, 0.13 to 0.2. Intervals are at 99 %, as many methods are judged. Presets that
differ in h or z alone are in tests/engine/test_unbiasedness.py.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.base import registry
from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.advantages import advantages
from bench.engine.batch import Batch, Report
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.experiment.method_files import shipped_config
from bench.measure.gradients.probe import GradientProfile, profile
from bench.measure.gradients.verdict import Verdict
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_gradient
from tests.support import fast_streams

pytestmark = pytest.mark.slow

STEPS = 6  # the least that every preset fits
MARGIN = 0.08
SHARP = {"eta": 1.0, "scale": 0.5}
SIZE, MOST = 512, 8 * 1024  # samples of a batch, at first and where that does not decide
LEVEL = 0.99


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


def chain() -> LinearGaussianChain:
    """One dimension: two parameters."""
    return LinearGaussianChain(STEPS, 1, noise=0.7)


def measured(method: Method, draws: int = 32, size: int = SIZE) -> GradientProfile:
    """The profile at the margin for closed-form chains."""
    goal = QuadraticReward([3.0])
    return profile(
        method, chain(), goal, prompts="abcdefgh", batch=size, draws=draws, margin=MARGIN, level=LEVEL
    )


def honest(name: str) -> Method:
    """A registered method as it ships, with large noise and perturbations."""
    cls = registry.load("method", name)
    loud = {key: value for key, value in SHARP.items() if key in cls.Config.model_fields}
    small = {"k": 2} if name == "draft-k" else {}
    return cls(shipped_config(name, "closed form", {**loud, **small}), STEPS)


def judged() -> list[str]:
    """Every method class, and the presets that work in another way than their class."""
    found = {name: e.load() for name, e in registry.entries("method").items() if e.base is None}
    classes = [name for name, cls in found.items() if cls.trains and cls.estimates]
    return [*classes, "rlr-no-zo", "rlr-fo", "rlr-antithetic", "rlr-resampled", "rlr-cv", "reinforce-cv"]


@pytest.mark.parametrize("name", judged())
def test_every_method_is_found_to_be_what_it_declares(name: str) -> None:
    method = honest(name)
    found, size = measured(method), SIZE
    while found.own.verdict is Verdict.UNDECIDED and size < MOST:  # what is clear at once takes no longer
        times = min(found.own.needed / found.draws, MOST)  # it is infinite where nothing is known
        size = min(MOST, size * max(2, math.ceil(1.2 * times)))
        found = measured(method, size=size)
    assert found.own.verdict == (Verdict.BIASED if method.biased else Verdict.UNBIASED), found.own.relative


class WrongConfig(Strict):
    """No settings."""


class Wrong(Method):
    """REINFORCE with noise at every step, and something wrong with it."""

    Config = WrongConfig
    biased = False
    needs_reward_grad = True
    plan = tiled([Kind.HO] * STEPS, [1.0] * STEPS)

    def __init__(self, fault: str) -> None:
        super().__init__(WrongConfig(), STEPS)
        self.fault = fault

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One gradient with its fault."""
        plans = [self.plan] * len(batch.prompts)
        if self.fault == "1/p forgotten":
            keep = torch.rand(len(plans), generator=torch.Generator().manual_seed(batch.step)) < 0.5
            alone = Plan((Segment(Kind.SKIP, 0, 3), *self.plan.segments[3:]), self.plan.eta)
            plans = [self.plan if k else alone for k in keep]
        trajectory = engine.rollout(plans, batch)
        report = engine.gradient(trajectory, advantages(trajectory.signed, batch.prompts, "loo"))
        parameters = engine.chain.parameters()
        if self.fault == "sign flipped":
            for p in parameters:
                p.grad = -_gradient(p)
        if self.fault == "last step counted twice":
            for micro in trajectory.micros:
                engine.roller.score(micro, need_grad=True)
                assert micro.reward_grad is not None
                rows = list(range(len(micro.index)))
                back = engine.pullback.step(micro, STEPS - 1, rows, micro.reward_grad)
                for p, extra in zip(parameters, back.parameters, strict=True):
                    assert extra is not None
                    p.grad = _gradient(p) - extra / len(batch.prompts)
        yield report


def _gradient(p: torch.nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


@pytest.mark.parametrize("fault", ["sign flipped", "last step counted twice", "1/p forgotten"])
def test_wrong_estimator_is_found_out(fault: str) -> None:
    found = measured(Wrong(fault))
    assert found.own.verdict is Verdict.BIASED, found.own.relative


@pytest.mark.parametrize("factor", [-1.0, 0.5])
def test_full_backpropagation_with_a_wrong_factor_is_not_taken_for_the_exact_gradient(factor: float) -> None:
    settings = {"h": 0, "completion": "none", "fo_steps": STEPS, "weights": {"fo": factor}, "eta": 1.0}
    method = registry.load("method", "rlr")(shipped_config("rlr", "closed form", settings), STEPS)
    found = measured(method)
    assert found.own.verdict is Verdict.BIASED
    assert found.own.scale == pytest.approx(factor, abs=0.01)


def test_the_same_estimator_without_its_fault_passes() -> None:
    assert measured(Wrong("none"), size=4 * SIZE).own.verdict is Verdict.UNBIASED


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_exact_gradients_mean_is_the_closed_form(eta: float) -> None:
    method = honest("full_bp").__class__(shipped_config("full_bp", "closed form", {"eta": eta}), STEPS)
    found = measured(method, draws=16)
    expected = exact_gradient(chain(), QuadraticReward([3.0]), (eta,) * STEPS)
    mean = found.moments.exact.vectors.sum(0) / found.moments.exact.total
    error = (mean - expected).norm()
    spread = math.sqrt(found.moments.exact.spread() / found.moments.exact.total)
    assert error < 3 * spread
    assert found.own.norm == pytest.approx(float(expected.norm()), rel=0.05)


def test_cosine_variance_and_scale_are_those_of_the_draws() -> None:
    found = measured(honest("truncated_bp"))
    assert found.own.scale == pytest.approx(1 - found.own.relative.value, abs=0.15)
    assert found.own.cosine.value == pytest.approx(math.cos(math.asin(found.own.direction.value)), abs=0.02)
    assert 0 < found.noise.relative < 0.1


def test_ddpos_direction_is_unbiased_although_its_scale_is_not() -> None:
    settings = {"per_prompt": False, "advantage_clamp": 100, "log_prob": "sum", "clip": 0.9, **SHARP}
    settings = {k: v for k, v in settings.items() if k != "scale"}
    found = measured(
        registry.load("method", "ddpo")(shipped_config("ddpo", "closed form", settings), STEPS),
        draws=64,
        size=2 * SIZE,
    )
    assert found.own.verdict is Verdict.BIASED
    assert found.own.direction.value < 0.05
    assert found.own.scale < 0.9


def test_undecided_says_how_many_draws_would_decide() -> None:
    settings: dict[str, Any] = {"h": 1, **SHARP}
    method = registry.load("method", "rlr")(shipped_config("rlr", "closed form", settings), STEPS)
    few = measured(method, draws=6)
    assert few.own.verdict is Verdict.UNDECIDED
    assert 20 < few.own.needed < 5000


def test_profile_needs_an_end_and_whole_prompts() -> None:
    method = honest("truncated_bp")
    with pytest.raises(BenchError, match="draws or seconds"):
        profile(method, chain(), QuadraticReward([3.0]), prompts="ab")
    with pytest.raises(BenchError, match="no multiple"):
        profile(method, chain(), QuadraticReward([3.0]), prompts="ab", batch=3, draws=1)


def test_profile_stops_when_its_time_is_up() -> None:
    found = profile(honest("truncated_bp"), chain(), QuadraticReward([3.0]), prompts="ab", seconds=0.5)
    assert found.draws >= 1
