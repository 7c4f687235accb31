"""GRPO: where noise is, which steps are pulled back, what a prompt's samples share, and what it estimates."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.base.errors import BenchError
from bench.engine.batch import Batch, Perturbation
from bench.engine.engine import Engine
from bench.engine.plan import Kind, Plan
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_contributions
from methods.grpo import Grpo, GrpoConfig
from tests.support import fast_streams
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of, gradient

STEPS = 5
EXACT = {"baseline": "loo_prompt", "divide": "none", "log_prob": "sum", "advantage_clamp": None, "clip": 0.5}


def grpo(steps: int = STEPS, **settings: Any) -> Grpo:
    """GRPO with these settings."""
    return Grpo(GrpoConfig.model_validate(settings), steps)


def noisy(plan: Plan) -> list[int]:
    """Steps with noise."""
    return [i for i, eta in enumerate(plan.eta) if eta > 0]


def pulled(plan: Plan) -> dict[int, float]:
    """HO steps and their weights; every other is dropped."""
    assert all(s.kind in (Kind.HO, Kind.SKIP) and s.stop == s.start + 1 for s in plan.segments)
    return {s.start: s.weight for s in plan.segments if s.kind is Kind.HO}


def test_all_steps_have_noise_and_are_pulled_back() -> None:
    plans = grpo().plans(0, batch_of(4))
    assert len(plans) == 4 and len(set(plans)) == 1
    assert noisy(plans[0]) == list(range(STEPS)) and pulled(plans[0]) == dict.fromkeys(range(STEPS), 1.0)


def test_window_slides_from_the_noisy_end_to_the_last_place_and_begins_again() -> None:
    method = grpo(window=2, slide_every=3, until=0.8)
    found = [noisy(method.plans(0, batch_of(4, step))[0]) for step in range(12)]
    assert found == [[0, 1]] * 3 + [[1, 2]] * 3 + [[2, 3]] * 3 + [[0, 1]] * 3
    assert list(pulled(method.plans(0, batch_of(4))[0])) == [0, 1]


def test_drawn_window_is_the_same_for_a_prompt_and_everywhere_in_time() -> None:
    method = grpo(window=1, window_moves="drawn")
    places = set[tuple[int, ...]]()
    apart = False
    for step in range(40):
        first, second, third, fourth = (tuple(noisy(p)) for p in method.plans(0, batch_of(4, step)))
        assert first == second and third == fourth
        apart = apart or first != third
        places |= {first, third}
    assert apart and places == {(i,) for i in range(STEPS)}


def test_step_fraction_draws_for_every_sample_and_weighs_by_its_inverse() -> None:
    method = grpo(step_fraction=0.6, window=4, until=1.0)
    plans = method.plans(0, batch_of(8))
    assert len({tuple(pulled(p)) for p in plans}) > 1
    for plan in plans:
        assert noisy(plan) == [0, 1, 2, 3]
        assert list(pulled(plan).values()) == [2.0, 2.0]
    assert list(pulled(grpo(step_fraction=0.01).plans(0, batch_of(2))[0]).values()) == [STEPS]


def test_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BenchError, match=r"grpo\.window is 4, but only 3 of the chain's 5 steps"):
        grpo(window=4, until=0.6)


def test_samples_of_a_prompt_share_where_they_start_and_nothing_else() -> None:
    engine = engine_of(ToyChain(STEPS, 2))
    plans = grpo().plans(0, batch_of(6))
    (plain,) = engine.rollout(plans, batch_of(6)).micros
    (common,) = engine.rollout(plans, batch_of(6), Perturbation(common_noise=True)).micros
    x, y = plain.states[0].x, common.states[0].x
    assert torch.equal(y[0::2], y[1::2]) and torch.equal(y[0::2], x[0::2])
    assert len({tuple(row) for row in y.tolist()}) == 3
    noise = [engine.roller.noise(micro, 2, list(range(6))) for micro in (plain, common)]
    assert torch.equal(*noise) and len({tuple(row) for row in noise[0].tolist()}) == 6


def test_a_branch_shares_its_chain_up_to_the_noise() -> None:
    method, engine = grpo(window=1, window_moves="drawn", common_noise=True), engine_of(ToyChain(STEPS, 2))
    batch = batch_of(4, step=3)
    plans = method.plans(engine.seed, batch)
    (micro,) = engine.rollout(plans, batch, method.perturbation).micros
    for first in (0, 2):
        (place,) = noisy(plans[first])
        same = [bool(torch.equal(s.x[first], s.x[first + 1])) for s in micro.states]
        assert same == [i <= place for i in range(STEPS + 1)]


def test_what_is_biased_says_so() -> None:
    assert grpo().biased
    assert not grpo(**EXACT).biased
    assert not grpo(**EXACT, step_fraction=0.5, common_noise=True, window=STEPS).biased
    for change in (
        {"window": 2},
        {"until": 0.5},
        {"inner_epochs": 2},
        {"minibatches": 2},
        {"baseline": "mean_prompt"},
        {"divide": "batch"},
        {"log_prob": "mean"},
        {"advantage_clamp": 5.0},
    ):
        settings: dict[str, Any] = EXACT | change
        assert grpo(**settings).biased, change


def test_advantages_are_flow_grpos() -> None:
    rewards = torch.tensor([1.0, 3.0, 8.0, 6.0])
    found = grpo().advantages(rewards, ("a", "a", "b", "b"))
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, 1.0, -1.0]) / rewards.std(unbiased=False))
    with pytest.raises(BenchError, match="another sample of its prompt"):
        next(iter(grpo(2).updates(engine_of(ToyChain(2, 1)), Batch(("a", "b"), 0))))


@pytest.fixture
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    yield


def standard_errors(method: Grpo, expected: Tensor, batches: int = 48, size: int = 512) -> Tensor:
    """(mean of the first gradients of some batches - expected) / its standard error, [d]."""
    chain = LinearGaussianChain(STEPS, 1, noise=0.7)
    engine, found = Engine(chain, QuadraticReward([3.0]), seed=0, micro_batch=size), []
    for step in range(batches):
        prompts = tuple(p for p in "abcdefgh" for _ in range(size // 8))
        next(iter(method.updates(engine, Batch(prompts, step))))
        found.append(gradient(chain).double())
    g = torch.stack(found)
    return (g.mean(0) - expected) / (g.std(0) / batches**0.5)


def contributions(*noisy_steps: int) -> Tensor:
    """Each step's share of the gradient of E[R] with noise at these steps alone, [T, d]."""
    chain = LinearGaussianChain(STEPS, 1, noise=0.7)
    eta = [float(i in noisy_steps) for i in range(STEPS)]
    return exact_contributions(chain, QuadraticReward([3.0]), eta)


@pytest.mark.slow
@pytest.mark.usefixtures("_fast_streams")
@pytest.mark.parametrize(
    "settings",
    [{}, {"common_noise": True}, {"step_fraction": 0.4}, {"baseline": "loo", "window": STEPS}],
    ids=str,
)
def test_first_update_is_the_exact_gradient(settings: dict[str, Any]) -> None:
    method = grpo(**EXACT | settings)
    assert not method.biased
    expected = contributions(*range(STEPS)).sum(0)
    found = standard_errors(method, expected)
    assert found.abs().max() < 3.5
    assert standard_errors(method, 0.8 * expected).abs().max() > 3.5  # a fifth less would have been seen


@pytest.mark.slow
@pytest.mark.usefixtures("_fast_streams")
def test_window_and_branch_estimate_their_steps_share_of_an_objective_with_noise_there_alone() -> None:
    window = grpo(**EXACT, window=2, slide_every=1000)
    expected = contributions(0, 1)[:2].sum(0)
    assert standard_errors(window, expected).abs().max() < 3.5
    branch = grpo(**EXACT, window=1, window_moves="drawn", common_noise=True)
    each = torch.stack([contributions(i)[i] for i in range(STEPS)])
    assert standard_errors(branch, each.mean(0)).abs().max() < 3.5
    assert (
        standard_errors(branch, contributions(*range(STEPS)).mean(0)).abs().max() > 3.5
    )  # another objective


def test_passes_and_minibatches_are_ppos() -> None:
    reports = list(
        grpo(2, inner_epochs=2, minibatches=2, clip=0.2).updates(engine_of(ToyChain(2, 1)), batch_of(8))
    )
    assert len(reports) == 4 and [r.backward for r in reports] == [8] * 4
