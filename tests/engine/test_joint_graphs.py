"""Graphs held jointly: the gradients of the staged engine, the memory of a direct implementation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation, Report
from bench.engine.chain import Chain
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.reward import Reward
from bench.experiment.choices import load_reward
from bench.experiment.settings import Choice
from bench.models.config import ModelConfig
from bench.run.load import load_chain
from methods.rlr import Rlr, RlrConfig
from tests.engine.test_engine import make
from tests.engine.test_pullback import ADVANTAGES, MIXED, NOISY_END
from tests.support.pipelines import CPU, image_chain
from tests.support.saved import saved_bytes
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, engine_of, fill, gradient

FO, HO, ZO, SKIP, PASS = Kind.FO, Kind.HO, Kind.ZO, Kind.SKIP, Kind.PASS
STEPS = 5
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("full_bp", {"eta": 0.0}),  # without noise a multistep solver keeps its memory
    ("truncated_bp", {"k": 3, "eta": 0.0}),
    ("truncated-bp-weighted", {"eta": 0.0}),
    ("alignprop", {"eta": 0.0, "cut_mean": 0.4}),
    ("alignprop", {"eta": 0.0, "truncation": "mask"}),
    ("truncated_bp", {"k": 3}),
    ("vader", {"mode": "rand"}),
    ("vader", {"mode": "single"}),
    ("refl", {}),
    *(("rlr", {"h": h}) for h in (1, 2, 3)),
    ("rlr", {"h": 2, "completion": "none", "fo_steps": 2}),
    ("rlr", {"h": 2, "shared": True, "antithetic": True}),
    ("rlr", {"h": 2, "completion": "resampled", "drawn": None, "fo": False, "mirrored": True}),
    ("rlr", {"h": 2, "control": "network"}),
    ("rlr-authors-code", {}),
    ("reinforce", {}),
    ("reinforce", {"drawn": 2}),
    ("ddpo", {"clip": 0.2}),
    ("zo", {}),
]


Found = tuple[Tensor, Report]


def run(
    method: tuple[str, dict[str, Any]], chain: Chain, reward: Reward | None = None, **options: Any
) -> Found:
    """The gradient of one batch, joint unless the engine's options say otherwise."""
    engine = engine_of(chain, reward or Pattern(), **{"joint": True, **options})
    report = next(iter(make(*method, chain.steps).updates(engine, batch_of(4))))
    return gradient(chain), report


def same(staged: Found, joint: Found, rtol: float) -> None:
    """Gradients within rtol of their norm; rewards, norms of terms, forward evaluations."""
    assert float((joint[0] - staged[0]).norm() / staged[0].norm()) < rtol
    torch.testing.assert_close(joint[1].rewards, staged[1].rewards)
    assert joint[1].forward == staged[1].forward
    assert joint[1].terms.keys() == staged[1].terms.keys()
    for kind, term in staged[1].terms.items():
        assert joint[1].terms[kind].norm == pytest.approx(term.norm, rel=1e-3)


@pytest.mark.parametrize("multistep", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_joint_gradient_is_the_staged_one_on_the_toy_chain(
    method: tuple[str, dict[str, Any]], multistep: float
) -> None:
    """In their second batch, for methods that learn."""
    chain, found = ToyChain(STEPS, 2, noise=0.7, multistep=multistep), []
    for joint in (False, True):
        made, engine = make(*method, STEPS), engine_of(chain, joint=joint)
        reports = [next(iter(made.updates(engine, batch_of(6, step)))) for step in range(2)]
        found.append((gradient(chain), reports[-1]))
    same(found[0], found[1], 1e-5)
    if method[1] != {"mode": "single"} and "truncation" not in method[1]:  # PASS steps are not run again
        assert found[1][1].backward == found[0][1].backward


@pytest.mark.parametrize(
    ("name", "settings", "solver"),
    [
        ("rlr", {"h": 2}, "ddim"),
        ("rlr", {"h": 2}, "dpmpp"),
        ("truncated_bp", {"k": 3, "eta": 0.0}, "dpmpp"),
        ("ddpo", {}, "ddim"),
    ],
)
def test_joint_gradient_is_the_staged_one_on_the_image_chain(
    name: str, settings: dict[str, Any], solver: str
) -> None:
    chain = image_chain(solver=solver)
    same(run((name, settings), chain, joint=False), run((name, settings), chain), 1e-4)


@pytest.mark.parametrize(("name", "settings"), [("rlr", {"h": 2}), ("truncated_bp", {"k": 2})])
def test_joint_gradient_is_the_staged_one_on_the_embedded_model(name: str, settings: dict[str, Any]) -> None:
    model = ModelConfig(source="embedded:sd", steps=4, guidance=1.0)
    chain, reward = load_chain(model, CPU), load_reward(Choice(name="clip", config={}), CPU)
    fill(chain, 0.05)
    same(run((name, settings), chain, reward, joint=False), run((name, settings), chain, reward), 1e-4)


@pytest.mark.parametrize("plans", [MIXED, NOISY_END], ids=["mixed", "noisy end"])
@pytest.mark.parametrize("multistep", [0.0, 0.5])
@pytest.mark.parametrize("micro_batch", [3, 7])
def test_every_sample_may_have_another_plan(plans: list[Plan], multistep: float, micro_batch: int) -> None:
    """Blocks that begin, end and go on at the same step, weights, FO and PASS beside HO."""
    chain, pert, found = ToyChain(4, 2, noise=0.7, multistep=multistep), Perturbation(scale=0.1), []
    for joint in (False, True):
        engine = engine_of(chain, micro_batch=micro_batch, joint=joint)
        trajectory = engine.rollout(plans, batch_of(len(plans)), pert)
        weights = {FO: 2.0, HO: -0.5, ZO: 3.0}
        report = engine.gradient(trajectory, ADVANTAGES, weights=weights)
        found.append((gradient(chain), report))
    same(found[0], found[1], 1e-5)


@pytest.mark.parametrize(
    "options", [{"reward_chunk": 2}, {"offload": True}, {"micro_batch": 3}, {"checkpointing": True}], ids=str
)
def test_what_saves_memory_changes_no_joint_gradient(options: dict[str, Any]) -> None:
    method = ("rlr", {"h": 1})
    frugal = image_chain(steps=3, gradient_checkpointing="checkpointing" in options)
    kept = {key: value for key, value in options.items() if key != "checkpointing"}
    same(run(method, image_chain(steps=3)), run(method, frugal, **kept), 1e-4)


def alive(method: Method, chain: Chain) -> int:
    """Bytes that graphs hold at most; none after the gradient."""
    engine = engine_of(chain, Pattern(), joint=True)
    with saved_bytes() as meter:
        next(iter(method.updates(engine, batch_of(2))))
        assert meter["now"] == 0
    return meter["peak"]


def test_joint_memory_grows_with_the_chain_for_full_backpropagation_and_with_h_for_rlr() -> None:
    """With the steps that have a graph; dR/dx_0 through decoder and reward is the same for all."""

    chains = {steps: image_chain(steps=steps, guidance=1.0) for steps in (3, 4, 6)}

    def full(steps: int) -> int:
        return alive(make("full_bp", {}, steps), chains[steps])

    def rlr(h: int, steps: int) -> int:
        return alive(Rlr(RlrConfig(h=h, one_start=True), steps), chains[steps])

    per_step = full(4) - full(3)
    assert full(6) - full(4) == pytest.approx(2 * per_step, rel=0.01)
    assert rlr(2, 4) == pytest.approx(rlr(2, 6), rel=0.01)
    assert rlr(3, 6) - rlr(2, 6) == pytest.approx(per_step, rel=0.05)
    assert rlr(3, 6) == pytest.approx(full(4), rel=0.1)  # four steps, two of them without dR/dx before them


def test_joint_runs_no_network_evaluation_twice() -> None:
    for joint, expected in ((True, 4), (False, 4 + 3)):
        chain = image_chain()
        engine, calls = engine_of(chain, Pattern(), joint=joint), []
        chain.unet.conv_in.register_forward_pre_hook(lambda *_: calls.append(1))  # noqa: B023
        method = Rlr(RlrConfig(h=2, one_start=True), 4)
        report = next(iter(method.updates(engine, batch_of(4))))
        assert len(calls) == expected
        assert (report.forward, report.backward) == (4 * 4 * 2, 4 * 3 * 2)


def test_graphs_go_with_their_gradient_and_a_second_one_is_an_error_that_says_what_to_do() -> None:
    engine = engine_of(ToyChain(3, 2), joint=True)
    trajectory = engine.rollout([Plan((Segment(FO, 0, 3),), (0, 0, 0))] * 4, batch_of(4))
    engine.gradient(trajectory, torch.zeros(4))
    with pytest.raises(BenchError, match=r"one gradient.*inner_epochs.*train.graphs=staged"):
        engine.gradient(trajectory, torch.zeros(4))
    exact = engine.pathwise(trajectory)  # step by step, whatever has been kept
    torch.testing.assert_close(exact, gradient(engine.chain))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ddpo", {"inner_epochs": 2}, "ddpo.inner_epochs"),
        ("ddpo", {"minibatches": 2}, "ddpo.minibatches"),
        ("rlr", {"h": 1, "start": "norms"}, "rlr.start=norms"),
    ],
)
def test_what_joint_graphs_cannot_give_is_an_error_that_says_what_can(
    name: str, settings: dict[str, Any], message: str
) -> None:
    engine = engine_of(ToyChain(3, 2, noise=0.7), joint=True)
    with pytest.raises(BenchError, match=rf"train.graphs=joint.*{message}.*set train.graphs=staged"):
        for _ in make(name, settings, 3).updates(engine, batch_of(4)):
            pass


def test_joint_gradients_without_the_rewards_gradient_say_so() -> None:
    engine = engine_of(ToyChain(2, 1), joint=True)
    plan = Plan((Segment(FO, 0, 2),), (0, 0))
    trajectory = engine.rollout([plan] * 2, batch_of(2), reward_grad=False)
    with pytest.raises(ValueError, match="reward_grad=True"):
        engine.gradient(trajectory, torch.zeros(2))


def test_a_watch_is_told_single_steps_and_so_is_refused() -> None:
    with pytest.raises(ValueError, match="single steps"):
        Engine(ToyChain(2, 1), Bowl(), seed=0, micro_batch=2, joint=True, watch=object())  # type: ignore[arg-type]
