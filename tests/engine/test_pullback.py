"""The step-wise pull-back against one joint autograd graph, and what it keeps alive."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import MicroBatch, Perturbation, Trajectory
from bench.engine.chain import Chain, State, gaussian_log_prob
from bench.engine.engine import Engine
from bench.engine.offload import offloaded
from bench.engine.plan import Kind, Plan, Segment
from scripts.embedded.export import Prediction
from tests.support.pipelines import image_chain
from tests.support.saved import saved_bytes
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, engine_of, flat, gradient

FO, HO, ZO, SKIP, PASS, DI = Kind.FO, Kind.HO, Kind.ZO, Kind.SKIP, Kind.PASS, Kind.DI
ADVANTAGES = torch.tensor([0.7, -1.3, 0.4, 2.0, -0.2, 1.1, -0.8, 0.3])

MIXED = [
    Plan((Segment(SKIP, 0, 1), Segment(HO, 1, 3, 1.7), Segment(FO, 3, 4)), (0, 0, 1, 0)),
    Plan(
        (Segment(ZO, 0, 1, 0.6), Segment(HO, 1, 2, 0.4), Segment(ZO, 2, 3), Segment(FO, 3, 4)), (0, 1, 0, 0)
    ),
    Plan((Segment(FO, 0, 4),), (0, 0.5, 0, 0)),
    Plan((Segment(PASS, 0, 1), Segment(FO, 1, 2), Segment(PASS, 2, 4)), (0, 0, 0, 0)),
    Plan((Segment(HO, 0, 3, 2.5), Segment(FO, 3, 4)), (0.3, 0, 0.8, 0)),
    Plan((Segment(HO, 0, 1), Segment(HO, 1, 2, 3.0), Segment(SKIP, 2, 3), Segment(PASS, 3, 4)), (1, 1, 0, 0)),
    Plan((Segment(SKIP, 0, 2), Segment(FO, 2, 3), Segment(PASS, 3, 4)), (1, 0, 1, 0)),
    Plan((Segment(DI, 0, 1), Segment(PASS, 1, 2), Segment(FO, 2, 3), Segment(DI, 3, 4)), (0, 0, 1, 0)),
]
NOISY_END = [
    *MIXED[:6],
    Plan((Segment(ZO, 0, 1), Segment(HO, 1, 2), Segment(HO, 2, 4, 0.5)), (0, 1, 0, 1)),
    Plan((Segment(SKIP, 0, 1), Segment(DI, 1, 4)), (0, 1, 0, 1)),
]


def joint_gradient(engine: Engine, trajectory: Trajectory, plans: list[Plan], pert: Perturbation) -> Tensor:
    """The same estimator, each sample's graph built in one piece."""
    total = torch.zeros(sum(p.numel() for p in engine.chain.parameters()))
    for micro in trajectory.micros:
        for r, b in enumerate(micro.index):
            objective = surrogate(engine, micro, r, plans[b])
            grads = torch.autograd.grad(objective, engine.chain.parameters(), allow_unused=True)
            total += flat(
                [
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(engine.chain.parameters(), grads, strict=True)
                ]
            )
            for segment in plans[b].segments:
                if segment.kind is ZO:
                    for i in range(segment.start, segment.stop):
                        z = engine.roller.z(micro, i, [r])[0]
                        total += ADVANTAGES[b] * segment.weight * z / pert.scale
    return total / len(plans)


def surrogate(engine: Engine, micro: MicroBatch, r: int, plan: Plan) -> Tensor:
    """R(x_0) through the backpropagated end plus w A log p of every block, for one row."""
    chain, row = engine.chain, torch.tensor([r])
    cond, objective, state = micro.cond.select(row), torch.zeros(()), None
    for segment in plan.segments:
        if segment.kind in (ZO, SKIP):
            continue
        if segment.kind is HO or state is None:
            state = micro.states[segment.start].select(row)
        for i in range(segment.start, segment.stop):
            assert state is not None
            state = state.reset([micro.resets[r][i]])
            kind = segment.kind
            out = chain.transition(state, i, cond, micro.eta[row, i], kind is PASS, kind is DI)
            x = out.mean
            if plan.eta[i] > 0:
                x = x + out.std * engine.roller.noise(micro, i, [r])
            state = State(x, out.history, None if out.history is None else torch.tensor([True]))
            if segment.kind is HO and i == segment.stop - 1:
                drawn = micro.states[i + 1].x[row]
                log_prob = gaussian_log_prob(drawn, out.mean, out.std)[0]
                objective = objective + segment.weight * ADVANTAGES[micro.index[r]] * log_prob
                state = None
    if state is not None:
        objective = objective + engine.reward.score(chain.decode(state.x), [micro.prompts[r]])[0]
    return objective if objective.requires_grad else objective + 0 * sum(p.sum() for p in chain.parameters())


def both(chain: Chain, reward: Any, plans: list[Plan], micro_batch: int) -> tuple[Tensor, Tensor]:
    """(step-wise, joint) gradients of a batch in which every sample has another plan."""
    engine = engine_of(chain, reward, micro_batch=micro_batch)
    pert = Perturbation(scale=0.1)
    trajectory = engine.rollout(plans, batch_of(len(plans)), pert)
    engine.gradient(trajectory, ADVANTAGES)
    return gradient(chain), joint_gradient(engine, trajectory, plans, pert)


@pytest.mark.parametrize("plans", [MIXED, NOISY_END], ids=["mixed", "noisy end"])
@pytest.mark.parametrize("multistep", [0.0, 0.5])
@pytest.mark.parametrize("micro_batch", [3, 8])
def test_stepwise_pull_back_equals_one_joint_graph_on_the_toy_chain(
    plans: list[Plan], multistep: float, micro_batch: int
) -> None:
    chain = ToyChain(4, 2, noise=0.7, multistep=multistep)
    stepwise, joint = both(chain, Bowl(), plans, micro_batch)
    torch.testing.assert_close(stepwise, joint, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "prediction"), [("ddim", "epsilon"), ("dpmpp", "epsilon"), ("dpmpp", "v_prediction")]
)
def test_stepwise_pull_back_equals_one_joint_graph_on_the_image_chain(
    solver: str, prediction: Prediction
) -> None:
    chain = image_chain(solver=solver, prediction_type=prediction)
    plans = NOISY_END if solver == "ddim" else MIXED  # DPM-Solver++ ends without noise
    stepwise, joint = both(chain, Pattern(), plans, 3)
    assert float((stepwise - joint).norm() / joint.norm()) < 1e-4


@pytest.mark.slow
def test_pathwise_equals_one_joint_graph() -> None:
    for chain, reward in (
        (ToyChain(4, 2, noise=0.7, multistep=0.5), Bowl()),
        (image_chain(solver="dpmpp", steps=3), Pattern()),
    ):
        plan = Plan((Segment(FO, 0, chain.steps),), (0.0, 0.5, *[0.0] * (chain.steps - 2)))
        engine = engine_of(chain, reward, micro_batch=2)
        trajectory = engine.rollout([plan] * 4, batch_of(4))
        joint = joint_gradient(engine, trajectory, [plan] * 4, Perturbation())
        torch.testing.assert_close(engine.pathwise(trajectory), joint, rtol=1e-3, atol=1e-5)


def test_pathwise_is_taken_at_the_perturbed_parameters() -> None:
    """ZO rows among others, a perturbation of their own at every ZO step."""
    chain = ToyChain(3, 2, multistep=0.3)
    engine = engine_of(chain)
    plans = [
        Plan((Segment(ZO, 0, 2), Segment(FO, 2, 3)), (0, 0, 0)),
        Plan((Segment(SKIP, 0, 1), Segment(ZO, 1, 3)), (0, 0, 0)),
    ]
    pert = Perturbation(scale=0.5)
    trajectory = engine.rollout(plans, batch_of(2), pert, reward_grad=True)
    (micro,) = trajectory.micros
    state = chain.prior(micro.states[0].x)
    for i in range(3):
        delta = engine.roller.perturbations(micro, i, [0, 1])
        with contextlib.nullcontext() if delta is None else chain.perturbed(delta):
            out = chain.transition(state, i, micro.cond, torch.zeros(2))
        state = State(out.mean, out.history, torch.ones(2, dtype=torch.bool))
    (expected,) = torch.autograd.grad(engine.reward.score(state.x, micro.prompts).mean(), chain.weight)
    torch.testing.assert_close(engine.pathwise(trajectory), expected.flatten())


def test_first_order_weight_counts_for_the_step_it_is_on_and_not_for_those_before() -> None:
    chain = ToyChain(3, 2)
    parts = []
    for i in range(3):
        weights = [1e-6] * 3
        weights[i] = 1.0
        plan = Plan(tuple(Segment(FO, k, k + 1, w) for k, w in enumerate(weights)), (0, 0, 0))
        engine = engine_of(chain)
        engine.gradient(engine.rollout([plan] * 4, batch_of(4)), torch.zeros(4))
        parts.append(gradient(chain))
    weighted = Plan(tuple(Segment(FO, k, k + 1, w) for k, w in enumerate((3.0, 2.0, 0.5))), (0, 0, 0))
    engine = engine_of(chain)
    engine.gradient(engine.rollout([weighted] * 4, batch_of(4)), torch.zeros(4))
    expected = 3 * parts[0] + 2 * parts[1] + 0.5 * parts[2]
    torch.testing.assert_close(gradient(chain), expected, rtol=1e-4, atol=1e-5)


def test_gradients_that_need_the_rewards_gradient_say_so() -> None:
    engine = engine_of(ToyChain(2, 1))
    plan = Plan((Segment(FO, 0, 2),), (0, 0))
    trajectory = engine.rollout([plan] * 2, batch_of(2), reward_grad=False)
    with pytest.raises(ValueError, match="reward_grad=True"):
        engine.gradient(trajectory, torch.zeros(2))
    exact = engine.pathwise(trajectory)  # asks the reward again
    engine.gradient(engine.rollout([plan] * 2, batch_of(2)), torch.zeros(2))
    torch.testing.assert_close(exact, gradient(engine.chain))


@pytest.mark.slow
def test_likelihood_ratio_at_a_step_without_noise_is_an_error_that_says_what_to_do() -> None:
    chain = image_chain(set_alpha_to_one=True, steps=2)
    engine = engine_of(chain, Pattern())
    plan = Plan((Segment(HO, 0, 1), Segment(HO, 1, 2)), (1, 1))
    with pytest.raises(BenchError, match=r"step 1 of 2 injects no noise.*set_alpha_to_one=False"):
        engine.rollout([plan] * 2, batch_of(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FO, HO])
def test_a_gradient_keeps_one_network_graph_however_long_the_chain(kind: Kind) -> None:
    peaks = {}
    for steps in (3, 6):
        chain = image_chain(steps=steps)
        engine = engine_of(chain, Pattern())
        plan = Plan((Segment(kind, 0, steps),), (*[0.0] * (steps - 1), 1.0))
        with saved_bytes() as meter:
            trajectory = engine.rollout([plan] * 2, batch_of(2))
            assert meter["now"] == 0, "the reward's graph outlives its gradient"
            meter["peak"] = 0
            engine.gradient(trajectory, torch.ones(2))
            assert meter["now"] == 0
        peaks[steps] = meter["peak"]
        with saved_bytes() as meter:  # the meter sees a joint graph grow
            state, cond = chain.prior(trajectory.micros[0].states[0].x), trajectory.micros[0].cond
            for i in range(steps):
                state = State(chain.transition(state, i, cond, torch.zeros(2)).mean)
        assert meter["peak"] > 0.9 * steps * peaks[steps]
    assert peaks[6] <= 1.01 * peaks[3]


def test_offload_moves_activations_and_leaves_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both layers need their weight for a backward, and the second its input."""
    moved: list[tuple[int, ...]] = []

    def cpu(tensor: Tensor) -> Tensor:
        moved.append(tuple(tensor.shape))
        return tensor.clone()

    monkeypatch.setattr(Tensor, "cpu", cpu)
    x = torch.ones(3, 5, requires_grad=True)
    frozen, trained = torch.nn.Linear(5, 7).requires_grad_(False), torch.nn.Linear(7, 2)
    with offloaded():
        out = trained(frozen(x))
    assert moved == [(3, 7)]
    found = torch.autograd.grad(out.sum(), [x, trained.weight])
    expected = torch.autograd.grad(trained(frozen(x)).sum(), [x, trained.weight])
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
