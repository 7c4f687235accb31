"""Estimators against the exact gradient of what they claim to estimate, on the closed-form chain.

T = 4 steps, one dimension, large noise: a standard error of 5 % of the gradient's norm then takes a few
thousand samples, in groups of 4 samples per prompt, so that a wrong leave-one-out baseline over a group would
show. Seeds are fixed; "within 3 standard errors" is explained in tests/support/statistics.py.
"""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

import bench.engine.rollout
from bench.base import registry
from bench.engine.advantages import advantages
from bench.engine.batch import Batch, Perturbation
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import PlanMethod
from bench.experiment.method_files import shipped_config
from methods.ddpo import Ddpo, DdpoConfig
from methods.rlr import Rlr, RlrConfig
from methods.zo import Zo, ZoConfig
from tests.support import fast_streams
from tests.support.statistics import Comparison, Recorder, compare, first_update
from tests.support.toy import ToyChain
from tests.support.toys import engine_of

pytestmark = pytest.mark.slow

STEPS = 4
PRESET_STEPS = 6  # room for the longest preset, h = 4, and for a truncation at 5
LEAST, MOST = 160, 512  # samples of a batch
SHARP_ENOUGH = 0.05
SHARP = {"eta": 1.0, "scale": 0.5}  # noise and perturbation large enough for a sharp test
UNBIASED_RLR: dict[str, dict[str, Any]] = {
    "h 0": {"h": 0},
    "h 1": {"h": 1},
    "h 2": {"h": 2},
    "h 3": {"h": 3},
    "no baseline": {"h": 1, "baseline": "none"},
    "prompt baseline": {"h": 1, "baseline": "loo_prompt"},
    "shared z": {"h": 1, "shared": True},
    "antithetic": {"h": 1, "antithetic": True},
    "antithetic, prompt baseline": {"h": 1, "antithetic": True, "baseline": "loo_prompt"},
    "antithetic, shared z": {"h": 1, "antithetic": True, "shared": True},
    "zo instead of fo": {"h": 1, "fo": False},
    "one start": {"h": 1, "one_start": True},
    "part of the starts": {"h": 1, "start_range": (1, 1)},
    "starts by norms": {"h": 1, "start": "norms"},
    "resampled h 1": {"h": 1, "completion": "resampled"},
    "resampled h 2": {"h": 2, "completion": "resampled"},
    "resampled h 3": {"h": 3, "completion": "resampled"},
    "resampled without fo": {"h": 1, "completion": "resampled", "fo": False},
    "resampled by norms": {"h": 1, "completion": "resampled", "start": "norms"},
    "whole block without completion": {"h": 3, "completion": "none"},
    "two first-order steps": {"h": 1, "fo_steps": 2},
    "two first-order steps, resampled": {"h": 1, "fo_steps": 2, "completion": "resampled"},
    "two blocks drawn": {"h": 1, "completion": "resampled", "drawn": 2},
    "stratified starts": {"h": 1, "completion": "resampled", "stratified": True},
    "mirrored pairs": {"h": 1, "completion": "resampled", "mirrored": True},
    "mirrored and antithetic pairs": {"h": 1, "mirrored": True, "antithetic": True},
    "control variate": {"h": 1, "completion": "resampled", "drawn": 3, "control": "network"},
    "value alone": {"h": 1, "completion": "resampled", "drawn": 3, "control": "value"},
    "linear control variate": {"h": 2, "completion": "resampled", "control": "linear"},
}
BIASED_RLR: dict[str, dict[str, Any]] = {
    "no completion": {"h": 1, "completion": "none"},
    "no completion, no block": {"h": 0, "completion": "none"},
    "no completion, no fo": {"h": 3, "completion": "none", "fo": False},
    "weighted": {"h": 1, "weights": {"ho": 0.5}},
    "resampled over part of the starts": {"h": 1, "completion": "resampled", "start_range": (1, 2)},
    "control variate alone": {
        "h": 1,
        "completion": "resampled",
        "drawn": 3,
        "control": "network",
        "control_weight": 0.0,
    },
}


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


def sharp(name: str, steps: int = STEPS, **settings: Any) -> Method:
    """The method or preset as shipped for `tiny`, with large noise and perturbation where it has them."""
    cls = registry.load("method", name)
    loud = {k: v for k, v in SHARP.items() if k in cls.Config.model_fields}
    return cls(shipped_config(name, "tiny", loud | settings), steps)


def rlr(settings: dict[str, Any]) -> Rlr:
    """RLR; where starts follow norms, with norms that were measured before and are not measured again."""
    method = Rlr(RlrConfig.model_validate(SHARP | settings), STEPS)
    if method.config.start == "norms":
        method.state.update({0: 0.2, 1: 1.0, 2: 0.6})
        held = replace(method.estimator(), half_order_norms=False)  # measuring takes samples one by one
        setattr(method, "estimator", lambda: held)  # noqa: B010
    return method


def measured(method: Method, *, batches: int = 16, multistep: float = 0.0) -> Comparison:
    """The method's first update against the pathwise gradient, with as many samples as that takes: a standard
    error of 5 %, or where the method says it is biased, a difference that is none by chance."""
    chain, size = ToyChain(method.steps, 1, noise=0.7, multistep=multistep), LEAST
    while True:
        engine = engine_of(chain, micro_batch=size // 2)  # two, which `balance` measures noise between
        result = compare(engine, first_update(method), batches=batches, size=size)
        short = (result.relative_error / SHARP_ENOUGH) ** 2
        if size == MOST or (not result.agrees if method.biased else short <= 1):
            return result
        size = MOST if method.biased else min(MOST, 4 * math.ceil(1.2 * short * size / 4))


def assert_unbiased(result: Comparison) -> None:
    assert result.relative_error <= SHARP_ENOUGH, f"too blunt: {result.relative_error:.3f}"
    assert result.agrees, f"bias {result.bias:.3f} ± {result.relative_error:.3f}, p = {result.p_value:.1e}"


CLASSES = {name: entry.load() for name, entry in registry.entries("method").items()}
ESTIMATORS = [name for name, cls in CLASSES.items() if cls.trains and cls.estimates]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_method_is_biased_by_more_than_3_standard_errors_exactly_if_it_says_so(name: str) -> None:
    method = sharp(name, PRESET_STEPS)
    result = measured(method, batches=48 if name == "zo" else 16)  # a perturbation per step is that noisy
    if not method.biased:
        assert_unbiased(result)
    else:
        assert not result.agrees, f"says it is biased, but p = {result.p_value:.2f}"


@pytest.mark.parametrize("settings", UNBIASED_RLR.values(), ids=UNBIASED_RLR)
def test_rlr_is_unbiased_within_3_standard_errors(settings: dict[str, Any]) -> None:
    method = rlr(settings)
    assert not method.biased
    assert_unbiased(measured(method, batches=32 if settings.get("start") == "norms" else 16))


@pytest.mark.parametrize("settings", BIASED_RLR.values(), ids=BIASED_RLR)
def test_rlr_that_drops_or_weights_terms_is_biased_and_says_so(settings: dict[str, Any]) -> None:
    method = rlr(settings)
    assert method.biased
    assert not measured(method, batches=64 if "control" in settings else 16).agrees


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("truncated_bp", {"k": 3}),
        ("alignprop", {"truncation": "mask"}),
        ("vader", {"mode": "rand"}),
        ("vader", {"mode": "single"}),
        ("vader", {"mode": "specific", "step": 1}),
    ],
)
def test_backpropagation_that_drops_steps_is_biased_and_says_so(name: str, settings: dict[str, Any]) -> None:
    method = sharp(name, **settings)
    assert method.biased
    assert not measured(method).agrees


def test_truncation_of_no_step_is_unbiased_and_says_so() -> None:
    method = sharp("truncated_bp", k=STEPS)
    assert not method.biased
    assert_unbiased(measured(method))


@pytest.mark.parametrize(
    "settings", [{"k_min": 2, "decay": 0.5, "floor": 0.3}, {"decay": 0.4, "floor": 0.01}], ids=str
)
def test_weighted_truncation_is_unbiased_and_without_its_weights_biased(settings: dict[str, Any]) -> None:
    method = sharp("truncated-bp-weighted", **settings)
    assert_unbiased(measured(method))
    assert isinstance(method, PlanMethod)
    weighted = method.plan

    def forgotten(rng: random.Random) -> Plan:
        plan = weighted(rng)
        return replace(plan, segments=tuple(replace(s, weight=1.0) for s in plan.segments))

    setattr(method, "plan", forgotten)  # noqa: B010
    setattr(method, "biased", True)  # noqa: B010
    assert not measured(method).agrees


@pytest.mark.parametrize("settings", [{"baseline": "none"}, {"drawn": 2, "baseline": "loo_prompt"}], ids=str)
def test_reinforce_is_unbiased_whatever_is_drawn(settings: dict[str, Any]) -> None:
    assert_unbiased(measured(sharp("reinforce", **settings)))


@pytest.mark.parametrize(
    "settings",
    [{"shared": s, "antithetic": a, "eta": e} for s in (True, False) for a in (True, False) for e in (0, 1)],
    ids=str,
)
def test_zo_is_unbiased_for_the_smoothed_reward(settings: dict[str, Any]) -> None:
    assert_unbiased(measured(Zo(ZoConfig.model_validate(SHARP | settings), STEPS), batches=20))


def test_ddpos_first_update_is_the_gradient_over_the_rewards_standard_deviation() -> None:
    """Right direction, another scale."""
    chain = ToyChain(STEPS, 1, noise=0.7)
    stds: list[float] = []
    method = Ddpo(DdpoConfig(per_prompt=False, advantage_clamp=100, log_prob="sum"), STEPS)

    def estimate(engine: Recorder, batch: Batch) -> None:
        report = next(iter(method.updates(engine, batch)))  # pyright: ignore[reportArgumentType]
        stds.append(float(report.rewards.std()))

    result = compare(engine_of(chain, micro_batch=512), estimate, batches=16, size=512)
    scale = sum(stds) / len(stds)
    restored = Comparison(
        result.estimate * scale - result.target,
        result.covariance * scale**2,
        result.batches,
        result.target,
        result.estimate,
    )
    assert not result.agrees
    # Whitening by the batch's own mean and std shrinks by about 1/B, far below the error here.
    assert restored.bias < 0.1
    assert restored.relative_error < 0.05


@pytest.mark.parametrize("settings", [{"h": 1}, {"h": 3}, {"h": 2, "completion": "resampled"}], ids=str)
def test_rlr_with_a_multistep_solver_is_unbiased_for_the_chain_that_resets(settings: dict[str, Any]) -> None:
    assert_unbiased(measured(rlr(settings), multistep=0.4))


def test_multistep_memory_kept_across_the_blocks_end_would_be_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "resets", lambda plan: (True, *[False] * (plan.steps - 1)))
    method = rlr({"h": 3})
    setattr(method, "biased", True)  # noqa: B010
    assert not measured(method, multistep=0.4).agrees


def double_counted(rng: random.Random, literal: bool) -> Plan:
    """A block of one step that may be the last one, which FO counts as well if Eq. 6 is read literally."""
    j = rng.randrange(STEPS if literal else STEPS - 1)
    edges = ((Kind.ZO, 0, j), (Kind.HO, j, j + 1), (Kind.ZO, j + 1, STEPS))
    segments = tuple(Segment(kind, start, stop) for kind, start, stop in edges if stop > start)
    return Plan(segments, tuple(float(i == j) for i in range(STEPS)))


@pytest.mark.parametrize("literal", [True, False])
def test_eq_6_read_literally_counts_the_last_step_twice(literal: bool) -> None:
    """FO on the last step on top of {block, ZO} that cover it too; without it they agree."""
    chain = ToyChain(STEPS, 1, noise=0.7)
    pert = Perturbation(scale=0.5)
    rng = random.Random(0)

    def estimate(engine: Recorder, batch: Batch) -> None:
        plans = [double_counted(rng, literal=True) for _ in batch.prompts]
        trajectory = engine.rollout(plans, batch, pert)
        engine.gradient(trajectory, advantages(trajectory.signed, batch.prompts, "loo"))
        if not literal:
            return
        weight = chain.weight
        assert weight.grad is not None
        last = torch.zeros_like(weight)
        for micro in trajectory.micros:
            rows = list(range(len(micro.index)))
            assert micro.reward_grad is not None
            back = engine.engine.pullback.step(micro, STEPS - 1, rows, micro.reward_grad)
            assert back.parameters[0] is not None
            last += back.parameters[0]
        weight.grad -= last / len(batch.prompts)

    result = compare(engine_of(chain, micro_batch=512), estimate, batches=24, size=512)
    if literal:
        assert not result.agrees
        assert result.bias > 0.1
    else:
        assert_unbiased(result)
