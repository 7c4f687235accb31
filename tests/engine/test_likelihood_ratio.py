"""The control variate of half-order terms: what it may depend on, what it learns, what it is good for."""

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.engine.batch import Batch, Evaluations, Perturbation, Report
from bench.engine.control_variate import Control, ControlMode, Scale, Sums, scale_of
from bench.engine.engine import Engine
from bench.engine.likelihood_ratio import LikelihoodRatio
from bench.engine.plan import Kind, tiled
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward
from methods.rlr import Rlr, RlrConfig
from tests.support import fast_streams
from tests.support.pipelines import image_chain
from tests.support.toy import ToyChain
from tests.support.toys import Pattern, batch_of, engine_of, gradient

STEPS = 4
EVERYWHERE = tiled([Kind.HO] * STEPS, [1.0] * STEPS)


@pytest.fixture(autouse=True)
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


def toy() -> ToyChain:
    """Four noisy steps of two numbers."""
    return ToyChain(STEPS, 2, noise=0.7)


@pytest.mark.parametrize("mode", ["network", "linear"])
def test_surrogate_does_not_depend_on_the_noise_that_it_is_multiplied_with(mode: ControlMode) -> None:
    engine = engine_of(toy())
    pert = Perturbation(mirrored=True)
    trajectory = engine.rollout([EVERYWHERE] * 4, batch_of(4), pert)
    (micro,) = trajectory.micros
    ratio = LikelihoodRatio(engine.roller, torch.zeros(4), Evaluations())
    found = ratio.surrogate(micro, 0, [0, 1, 2, 3], Control((Scale(1.0),) * STEPS, mode=mode))
    assert not torch.allclose(micro.states[1].x[0], micro.states[1].x[1])
    torch.testing.assert_close(found.g[0::2], found.g[1::2])  # pairs: same x_T, opposite noise
    torch.testing.assert_close(found.correlate[0::2], -found.correlate[1::2])


@pytest.mark.parametrize("last", [False, True])
def test_surrogate_is_the_rewards_gradient_through_the_prediction_at_the_mean(last: bool) -> None:
    i = STEPS - 1 if last else 1
    chain = toy()
    engine = engine_of(chain)
    trajectory = engine.rollout([EVERYWHERE] * 3, batch_of(3))
    (micro,) = trajectory.micros
    counts = Evaluations()
    ratio = LikelihoodRatio(engine.roller, torch.zeros(3), counts)
    found = ratio.surrogate(micro, i, [0, 1, 2], Control((Scale(1.0),) * STEPS))
    mean = chain.transition(micro.states[i], i, micro.cond, micro.eta[:, i]).mean.detach().requires_grad_()
    state = type(micro.states[0])(mean)
    x0 = mean if last else chain.predict_x0(state, i + 1, micro.cond)
    reward = engine.reward.score(x0, micro.prompts).sum()
    torch.testing.assert_close(found.g, torch.autograd.grad(reward, mean)[0], rtol=1e-4, atol=1e-5)
    assert (counts.forward, counts.backward) == ((0, 0) if last else (3, 3))


@pytest.mark.slow
def test_evaluations_of_the_control_variate_are_counted() -> None:
    chain = image_chain(steps=3)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    plan = tiled([Kind.HO] * 3, [1.0] * 3)

    def report(control: Control | None = None) -> Report:
        trajectory = engine.rollout([plan] * 4, batch_of(4))
        return engine.gradient(trajectory, trajectory.signed, control=control)

    plain, with_network = report(), report(Control((Scale(1.0),) * 3))
    linear = report(Control((Scale(1.0),) * 3, mode="linear"))
    each = 4 * 2 * chain.evaluations_per_step  # the last step's mean is its own prediction
    assert with_network.forward - plain.forward == each
    assert with_network.backward - plain.backward == each
    assert with_network.again - plain.again == each  # to have its graph when the reward's is gone
    assert (linear.forward - plain.forward, linear.again - plain.again) == (each, each)
    assert linear.backward == plain.backward
    value = report(Control((Scale(1.0),) * 3, mode="value"))
    assert (value.forward - plain.forward, value.backward) == (each, plain.backward)


def gradients(method: Rlr, engine: Engine, batches: range) -> Tensor:
    """One gradient per batch of 64."""
    found = []
    for step in batches:
        next(iter(method.updates(engine, Batch(tuple("ab" * 32), step))))
        found.append(gradient(engine.chain))
    return torch.stack(found)


@pytest.mark.slow
def test_first_batch_is_plain_and_later_ones_have_less_variance() -> None:
    settings = {"h": 1, "eta": 1.0, "completion": "resampled", "drawn": STEPS, "fo": False}
    first, spread = {}, {}
    for control in ("none", "value", "linear", "network"):
        method = Rlr(RlrConfig.model_validate({**settings, "control": control}), STEPS)
        assert method.needs_reward_grad == (control in ("linear", "network"))
        chain = LinearGaussianChain(STEPS, 2)
        engine = engine_of(chain, QuadraticReward([1.0, -1.0]), micro_batch=64)
        first[control] = gradients(method, engine, range(1))
        torch.testing.assert_close(first[control], first["none"])
        spread[control] = float(gradients(method, engine, range(1, 60)).var(0).sum())
    assert spread["value"] < 0.5 * spread["none"]
    assert spread["network"] < 0.9 * spread["value"]
    assert spread["linear"] < 0.9 * spread["value"]


def test_scales_are_those_of_earlier_batches() -> None:
    method = Rlr(
        RlrConfig.model_validate({"h": 1, "eta": 1.0, "completion": "resampled", "control": "network"}), STEPS
    )
    #  rows, v = 1, 3, 5, A = 2 (v - 3) + 0.25 s, s = 2, -2, 0
    #  A offset by 1, which a value's scale must not feel
    method.state["control 0"] = (3.0, 9.0, 35.0, 3.0, 15.0 + 9.0, 0.25 * 8 + 2.0, 8.0)
    scale, trust = method.control_scales()[0], 3 / 19
    assert (scale.centre, scale.value, scale.slope) == pytest.approx((3.0, trust * 15 / 8, trust * 0.5))
    assert method.control_scales()[1:] == (Scale(),) * 3
    assert method.probabilities() == pytest.approx([1 / 3] * 3)


def test_fits_to_few_rows_cannot_run_away() -> None:
    wild = Sums(2.0, 2.0, 2.0 + 1e-5, 0.0, 5.0, 1e-3, 1e-9)
    scale = scale_of(wild)
    assert 0 <= scale.slope < 0.5
    assert 0 <= scale.value < 0.5
    assert scale_of(Sums(2.0, 2.0, 3.0, 0.0, -5.0, -1.0, 1.0)) == Scale(0.0, 0.0, 1.0)
