"""Graphs that are kept from the rollout: the gradients of steps that are run again, in less time."""

from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation, Report
from bench.engine.chain import Chain
from bench.engine.kept_graphs import Keep, spare_memory
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
from tests.support.toys import Pattern, batch_of, engine_of, fill, gradient

FO, HO, ZO, SKIP, PASS = Kind.FO, Kind.HO, Kind.ZO, Kind.SKIP, Kind.PASS
STEPS = 5
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("full_bp", {"eta": 0.0}),  # without noise a multistep solver keeps its memory
    ("truncated_bp", {"k": 3, "eta": 0.0}),
    ("truncated-bp-weighted", {"eta": 0.0}),
    ("alignprop", {"eta": 0.0, "cut_mean": 0.4}),
    ("alignprop", {"eta": 0.0, "truncation": "mask"}),
    ("truncated_bp", {"k": 3}),
    *(("vader", {"mode": mode}) for mode in ("rand", "single")),
    *((name, {}) for name in ("refl", "nft", "awm", "draft_lv")),
    ("drtune", {"k": 2}),
    ("grpo", {"window": 2}),
    *(("adjoint_matching", one) for one in ({"reward_scale": 3.0}, {"last": 1.0})),
    ("drtune", {"k": None, "first": None, "eta": 0.0}),
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
PLENTY = 10**12


def run(
    method: tuple[str, dict[str, Any]], chain: Chain, reward: Reward | None = None, **options: Any
) -> Found:
    """The gradient of one batch, with joint graphs unless the engine's options say otherwise."""
    engine = engine_of(chain, reward or Pattern(), **{"graphs": "joint", **options})
    report = next(iter(make(*method, chain.steps).updates(engine, batch_of(4))))
    return gradient(chain), report


def same(staged: Found, other: Found, rtol: float) -> None:
    """Gradients within rtol of their norm, or at 0 to the last bit; rewards, norms of terms, evaluations."""
    if rtol == 0:
        assert torch.equal(other[0], staged[0])
    assert float((other[0] - staged[0]).norm() / staged[0].norm()) <= rtol
    torch.testing.assert_close(other[1].rewards, staged[1].rewards)
    assert (other[1].forward, other[1].backward) == (staged[1].forward, staged[1].backward)
    assert other[1].terms.keys() == staged[1].terms.keys()
    for kind, term in staged[1].terms.items():
        assert other[1].terms[kind].norm == pytest.approx(term.norm, rel=1e-3 if rtol else 0)


def all_ways(run_one: Callable[[Keep], Found], rtol: float) -> None:
    """`auto` gives what `staged` gives to the last bit, `joint` the same within rtol."""
    staged = run_one("staged")
    same(staged, run_one("auto"), 0)
    same(staged, run_one("joint"), rtol)


@pytest.mark.parametrize("multistep", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_gradient_is_the_staged_one_on_the_toy_chain(
    method: tuple[str, dict[str, Any]], multistep: float
) -> None:
    """In their second batch, for methods that learn."""
    chain = ToyChain(STEPS, 2, noise=0.7, multistep=multistep)

    def run_one(graphs: Keep) -> Found:
        made, engine = make(*method, STEPS), engine_of(chain, graphs=graphs, graph_budget=PLENTY)
        reports = [next(iter(made.updates(engine, batch_of(6, step)))) for step in range(2)]
        return gradient(chain), reports[-1]

    all_ways(run_one, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "solver"),
    [
        ("rlr", {"h": 2}, "ddim"),
        ("rlr", {"h": 2}, "dpmpp"),
        ("truncated_bp", {"k": 3, "eta": 0.0}, "dpmpp"),
        ("drtune", {"k": 2}, "dpmpp"),
        ("adjoint_matching", {"last": 0.4}, "ddim"),
        ("ddpo", {}, "ddim"),
    ],
)
def test_gradient_is_the_staged_one_on_the_image_chain(
    name: str, settings: dict[str, Any], solver: str
) -> None:
    chain = image_chain(solver=solver)
    all_ways(lambda graphs: run((name, settings), chain, graphs=graphs), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("rlr", {"h": 2}), ("truncated_bp", {"k": 2})])
def test_gradient_is_the_staged_one_on_the_embedded_model(name: str, settings: dict[str, Any]) -> None:
    model = ModelConfig(source="embedded:sd", steps=4, guidance=1.0)
    chain, reward = load_chain(model, CPU), load_reward(Choice(name="clip", config={}), CPU)
    fill(chain, 0.05)
    all_ways(lambda graphs: run((name, settings), chain, reward, graphs=graphs), 1e-4)


@pytest.mark.parametrize("plans", [MIXED, NOISY_END], ids=["mixed", "noisy end"])
@pytest.mark.parametrize("multistep", [0.0, 0.5])
@pytest.mark.parametrize("micro_batch", [3, 7])
def test_every_sample_may_have_another_plan(plans: list[Plan], multistep: float, micro_batch: int) -> None:
    """Blocks that begin, end and go on at the same step, weights, FO and PASS beside HO."""
    chain, pert = ToyChain(4, 2, noise=0.7, multistep=multistep), Perturbation(scale=0.1)

    def run_one(graphs: Keep) -> Found:
        engine = engine_of(chain, micro_batch=micro_batch, graphs=graphs)
        trajectory = engine.rollout(plans, batch_of(len(plans)), pert)
        report = engine.gradient(trajectory, ADVANTAGES, weights={FO: 2.0, HO: -0.5, ZO: 3.0})
        return gradient(chain), report

    all_ways(run_one, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"reward_chunk": 2}, {"offload": True}, {"micro_batch": 3}, {"checkpointing": True}], ids=str
)
def test_what_saves_memory_changes_no_joint_gradient(options: dict[str, Any]) -> None:
    method = ("rlr", {"h": 1})
    frugal = image_chain(steps=3, gradient_checkpointing="checkpointing" in options)
    kept = {key: value for key, value in options.items() if key != "checkpointing"}
    same(run(method, image_chain(steps=3)), run(method, frugal, **kept), 1e-4)


def alive(method: Method, chain: Chain, **options: Any) -> int:
    """Bytes that graphs hold at most; none after the gradient."""
    engine = engine_of(chain, Pattern(), **{"graphs": "joint", **options})
    with saved_bytes() as meter:
        next(iter(method.updates(engine, batch_of(2))))
        assert meter["now"] == 0
    return meter["peak"]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(("graphs", "expected"), [("staged", 4 + 3), ("auto", 4), ("joint", 4)])
def test_a_kept_graph_saves_an_evaluation(graphs: Keep, expected: int) -> None:
    chain = image_chain()
    engine, calls = engine_of(chain, Pattern(), graphs=graphs), []
    chain.network.conv_in.register_forward_pre_hook(lambda *_: calls.append(1))
    method = Rlr(RlrConfig(h=2, one_start=True), 4)
    report = next(iter(method.updates(engine, batch_of(4))))
    assert len(calls) == expected
    assert (report.forward, report.backward, report.again) == (4 * 4 * 2, 4 * 3 * 2, 4 * (expected - 4) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("fit", [0, 1, 3, 6])
def test_auto_keeps_what_the_budget_allows_and_changes_nothing(fit: int) -> None:
    chain, method = image_chain(steps=3), ("full_bp", {"eta": 0.0})
    engine = engine_of(chain, Pattern(), micro_batch=2, graphs="auto", graph_budget=PLENTY)
    all_kept = next(iter(make(*method, 3).updates(engine, batch_of(4))))
    whole = engine.graphs.kept
    assert (whole.steps, whole.kept) == (12, 12)  # two micro-batches of two samples, three steps
    expected = gradient(chain)
    tight = engine_of(
        chain, Pattern(), micro_batch=2, graphs="auto", graph_budget=int((fit + 0.5) * whole.bytes / 6)
    )
    report = next(iter(make(*method, 3).updates(tight, batch_of(4))))
    assert tight.graphs.kept.kept == 2 * fit
    same((expected, all_kept), (gradient(chain), report), 0)
    next(iter(make(*method, 3).updates(tight, batch_of(4, 1))))  # the first batch's gave their memory back
    assert tight.graphs.kept.kept == 2 * fit


@pytest.mark.slow
def test_the_bytes_that_are_counted_are_those_that_autograd_stores() -> None:
    chain, method = image_chain(steps=3, guidance=1.0), make("full_bp", {"eta": 0.0}, 3)
    engine = engine_of(chain, Pattern(), graphs="auto", graph_budget=PLENTY)
    next(iter(method.updates(engine, batch_of(2))))  # measures what a step takes
    two, three = (
        alive(make("full_bp", {"eta": 0.0}, steps), image_chain(steps=steps, guidance=1.0))
        for steps in (2, 3)
    )
    counted = engine.graphs.kept.bytes / 3
    assert counted <= three - two  # which counts a tensor once for each of its uses
    assert counted == pytest.approx(three - two, rel=0.5)


def test_graphs_serve_one_gradient_and_later_ones_run_the_steps_again() -> None:
    """PPO's second pass over a batch, and the exact gradient of the same trajectory."""
    found: list[list[Tensor]] = []
    for graphs in ("staged", "auto"):
        chain = ToyChain(3, 2, noise=0.7)
        engine = engine_of(chain, graphs=graphs)
        found.append([])
        for _ in make("ddpo", {"inner_epochs": 2, "clip": 0.2}, 3).updates(engine, batch_of(4)):
            found[-1].append(gradient(chain))
            with torch.no_grad():
                for p in chain.parameters():
                    p -= 0.01 * p.grad  # type: ignore[operator]
    assert len(found[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    engine = engine_of(ToyChain(3, 2), graphs="auto")
    trajectory = engine.rollout([Plan((Segment(FO, 0, 3),), (0, 0, 0))] * 4, batch_of(4))
    engine.gradient(trajectory, torch.zeros(4))
    torch.testing.assert_close(engine.pathwise(trajectory), gradient(engine.chain))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ddpo", {"minibatches": 2}, "ddpo.minibatches"),
        ("rlr", {"h": 1, "start": "norms"}, "rlr.start=norms"),
    ],
)
def test_what_joint_graphs_cannot_give_is_an_error_that_says_what_can(
    name: str, settings: dict[str, Any], message: str
) -> None:
    engine = engine_of(ToyChain(3, 2, noise=0.7), graphs="joint")
    with pytest.raises(BenchError, match=rf"train.graphs=joint.*{message}.*set train.graphs=staged or auto"):
        next(iter(make(name, settings, 3).updates(engine, batch_of(4))))


def test_gradients_without_the_rewards_gradient_say_so() -> None:
    engine = engine_of(ToyChain(2, 1), graphs="joint")
    plan = Plan((Segment(FO, 0, 2),), (0, 0))
    trajectory = engine.rollout([plan] * 2, batch_of(2), reward_grad=False)
    with pytest.raises(ValueError, match="reward_grad=True"):
        engine.gradient(trajectory, torch.zeros(2))


def test_a_gpu_keeps_graphs_in_what_a_batch_left_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 GB, of which other programs have 10, this one 20 and needed 50 for a batch."""
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 60)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 80))
    assert spare_memory(torch.device("cuda"), 50) == int(0.8 * 20)
    assert spare_memory(torch.device("cuda"), 0) == 0  # no batch has shown yet what it needs
    assert 0 < spare_memory(CPU, 0) < psutil.virtual_memory().total / 4


def test_what_a_batch_needs_on_a_gpu_is_its_peak_without_the_graphs_that_it_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what the second batch keeps would leave the third one nothing to keep."""
    engine = engine_of(ToyChain(3, 2), graphs="auto")
    graphs, peaks, asked = engine.graphs, iter((50, 50 + 30, 45)), list[int]()
    graphs.budget = lambda needed: asked.append(needed) or 1000
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: next(peaks))
    monkeypatch.setattr(graphs.roller.chain, "device", torch.device("cuda"))
    for kept in (0, 30, 0):
        graphs.start_batch(4, True)
        graphs.kept.bytes = kept
        graphs.end_batch()
    graphs.start_batch(4, True)
    assert asked == [0, 50, 50, 50]
