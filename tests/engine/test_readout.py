"""ReFL's readout: the reward of the one-step prediction."""

import pytest
import torch
from torch import Tensor

from bench.engine.batch import Perturbation
from bench.engine.plan import Kind, Plan, Segment
from methods.refl import Refl, ReflConfig
from tests.support.pipelines import image_chain
from tests.support.toy import ToyChain
from tests.support.toys import Pattern, batch_of, engine_of, flat, gradient

M = 2
LATE = Plan((Segment(Kind.SKIP, 0, M), Segment(Kind.FO, M, M + 1)), (0.0,) * (M + 1), readout=M)
WHOLE = Plan((Segment(Kind.FO, 0, M + 1),), (0.0,) * (M + 1), readout=M)


def joint(cut: bool) -> tuple[Tensor, Tensor]:
    """(gradient, rewards) of the mean of R(x̂_0(x_m)) by one graph over everything; cut: x_m detached."""
    chain = image_chain(steps=4)
    engine = engine_of(chain, Pattern())
    batch = batch_of(2)
    micro = engine.roller.prepare([0, 1], [WHOLE] * 2, batch, Perturbation())
    start = engine.roller.noise(micro, -1, [0, 1])
    state = chain.prior(start)
    zero = torch.zeros(2)
    for i in range(M):
        state = type(state)(chain.transition(state, i, micro.cond, zero).mean)
    if cut:
        state = type(state)(state.x.detach())
    rewards = engine.reward.score(chain.decode(chain.predict_x0(state, M, micro.cond)), micro.prompts)
    return flat(torch.autograd.grad(rewards.mean(), chain.parameters())), rewards.detach()


@pytest.mark.slow
@pytest.mark.parametrize("plan", [LATE, WHOLE], ids=["refl", "through the chain"])
def test_gradient_of_a_readout_equals_one_joint_graph(plan: Plan) -> None:
    chain = image_chain(steps=4)
    engine = engine_of(chain, Pattern(), micro_batch=1)
    trajectory = engine.rollout([plan] * 2, batch_of(2))
    report = engine.gradient(trajectory, trajectory.signed)
    expected, rewards = joint(cut=plan is LATE)
    torch.testing.assert_close(gradient(chain), expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trajectory.rewards, rewards, rtol=1e-4, atol=1e-4)
    assert report.forward == 2 * (M + 1) * chain.evaluations_per_step
    torch.testing.assert_close(engine.pathwise(trajectory), joint(cut=False)[0], rtol=1e-3, atol=1e-5)


def test_refl_predicts_in_the_last_quarter_and_at_one_step_for_the_batch() -> None:
    method = Refl(ReflConfig(), 8)
    drawn = [method.plans(seed, batch_of(4)) for seed in range(40)]
    assert {plans[0].readout for plans in drawn} == {6, 7}
    assert all(len(set(plans)) == 1 for plans in drawn)
    assert Refl(ReflConfig(first=0.99), 3).plans(0, batch_of(1))[0].readout == 2


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([LATE, WHOLE], None),
        ([LATE, Plan((Segment(Kind.FO, 0, 4),), (0.0,) * 4)], "same readout"),
        ([Plan((Segment(Kind.FO, 0, 3),), (0.0,) * 3)], "3 steps, the chain has 4"),
    ],
)
def test_plans_of_a_batch_read_out_at_the_same_step(plans: list[Plan], message: str | None) -> None:
    engine = engine_of(ToyChain(4, 2))
    if message is None:
        engine.rollout(plans, batch_of(len(plans)))
        return
    with pytest.raises(ValueError, match=message):
        engine.rollout(plans, batch_of(len(plans)))


@pytest.mark.parametrize(("readout", "eta"), [(1, 0.0), (2, 1.0)])
def test_readout_is_the_last_step_and_has_no_noise(readout: int, eta: float) -> None:
    with pytest.raises(ValueError, match="readout"):
        Plan((Segment(Kind.FO, 0, 3),), (0.0, 0.0, eta), readout=readout)
