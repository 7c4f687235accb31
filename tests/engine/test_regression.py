"""Gradients at noised final samples: a loss of the prediction of x_0, and the last step run again."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from bench.engine.batch import Batch, MicroBatch, Report
from bench.engine.chain import Level, State
from bench.engine.engine import Engine
from bench.engine.final_samples import RunningMean, final_samples, flat, holding, levels
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.engine.regression import Prediction, Regression, per_sample
from bench.models.flow import flow_solver
from tests.engine.test_float16 import tiny
from tests.support.pipelines import image_chain
from tests.support.toy import ToyChain, ToyCondition
from tests.support.toys import Bowl, Distance, Pattern, batch_of, engine_of, gradient

STEPS, COUNT = 5, 8
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def contrast(p: Prediction) -> Tensor:
    """A loss of everything that a method may use: not the same for all samples, nor at all levels."""
    weights = torch.linspace(-1, 2, COUNT)[p.samples]
    own = per_sample((p.predicted - p.x0) ** 2) * weights + p.velocity_error(p.x0) * p.level.signal
    return own + sum(per_sample((p.predicted - x) ** 4) for x in p.beside.values())


def regressed(chain: ToyChain, steps: list[int], **options: Any) -> tuple[Tensor, Report]:
    """The gradient of `contrast` on one batch of eight, with the model's other selves beside."""
    engine = engine_of(chain, Bowl(), **options)
    trajectory = final_samples(engine, batch_of(COUNT), chain.steps)
    older = flat(chain.parameters()) * 0.5
    beside = {"reference": chain.reference, "older": lambda: holding(chain.parameters(), older)}
    report = engine.regression(trajectory, Regression(steps, contrast, beside))
    return gradient(chain), report


def trained() -> ToyChain:
    """A chain that is not its reference any more."""
    chain = ToyChain(STEPS, 2, noise=0.7)
    with torch.no_grad():
        chain.weight.add_(torch.tensor([[0.3, -0.2], [0.1, 0.4]]))
    return chain


def by_hand(chain: ToyChain, steps: list[int]) -> tuple[Tensor, Tensor]:
    """Loss and ascent direction of the same by autograd of the plain mean, all samples and levels at once."""
    engine = engine_of(chain, Bowl())
    (micro,) = final_samples(engine, batch_of(COUNT), STEPS).micros
    rows, x0 = list(range(COUNT)), micro.states[-1].x
    losses = []
    for draw, i in enumerate(steps):
        noise = engine.roller.forward_noise(micro, i, rows, draw)
        x = State((i / STEPS) * x0 + (1 - i / STEPS) * noise)
        predict = lambda x=x, i=i: chain.predict_x0(x, i, micro.cond)  # noqa: E731
        with torch.no_grad():
            with chain.reference():
                reference = predict()
            with holding(chain.parameters(), flat(chain.parameters()) * 0.5):
                older = predict()
        level, beside = chain.level(i), {"reference": reference, "older": older}
        losses.append(contrast(Prediction(slice(0, COUNT), level, x0, predict(), beside)).mean())
    loss = torch.stack(losses).mean()
    return loss.detach(), -torch.autograd.grad(loss, chain.weight)[0].flatten()


def test_gradient_and_loss_are_those_of_the_plain_mean_over_samples_and_levels() -> None:
    chain, steps = trained(), [0, 2, 2, 4]
    loss, expected = by_hand(chain, steps)
    found, report = regressed(chain, steps)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert report.extra["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert report.terms["match"].norm == pytest.approx(float(expected.norm()), rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"micro_batch": 3}, {"micro_batch": 1}, {"micro_batch": 2, "rollout_batch": 5}]
)
def test_neither_micro_batches_nor_rollout_batches_change_it(options: dict[str, int]) -> None:
    chain, steps = trained(), [1, 3]
    expected, whole = regressed(chain, steps)
    found, report = regressed(chain, steps, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert report.extra == pytest.approx(whole.extra, rel=1e-5)
    assert (report.forward, report.backward, report.again) == (whole.forward, whole.backward, whole.again)
    assert report.terms["match"].variance is not None and whole.terms["match"].variance is None


@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
def test_evaluations_are_counted_for_every_model_that_predicts(graphs: Any) -> None:
    _, report = regressed(trained(), [1, 3, 4], graphs=graphs)
    assert report.forward == COUNT * (STEPS + 3 * 3)
    assert (report.backward, report.again) == (COUNT * 3, 0)


class Narrow(ToyChain):
    """A chain on a device whose memory takes three rows with a graph, and six without."""

    def predict_x0(
        self,
        state: State,
        i: int,
        cond: ToyCondition,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Tensor:
        """The toy's, where it fits."""
        if len(state.x) > (3 if torch.is_grad_enabled() else 6):
            raise torch.OutOfMemoryError(f"{len(state.x)} rows")
        return super().predict_x0(state, i, cond, x_path_only, detach_input)


def test_auto_comes_down_to_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found, report = regressed(Narrow(STEPS, 2), [1, 3], micro_batch="auto")
    expected, whole = regressed(ToyChain(STEPS, 2), [1, 3])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert report.extra == pytest.approx(whole.extra, rel=1e-5)
    assert report.forward == whole.forward
    assert "4 samples at once: 2 from now on (train.micro_batch=auto)" in capsys.readouterr().err


def test_each_draw_of_a_level_has_noise_of_its_own_and_the_same_in_every_batch_of_that_number() -> None:
    chain = ToyChain(STEPS, 2)
    engine = engine_of(chain)
    seen: list[Tensor] = []

    def loss(p: Prediction) -> Tensor:
        seen.append(p.predicted.detach())
        return per_sample(p.predicted)

    for step in (0, 0, 1):
        engine.regression(final_samples(engine, batch_of(2, step), STEPS), Regression([0, 0], loss))
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[4])


@pytest.mark.slow
def test_small_losses_keep_their_digits_in_float16() -> None:
    chain, factor = tiny("float16"), 2.0**-24
    engine = engine_of(chain, Pattern())
    trajectory = final_samples(engine, batch_of(2), chain.steps)

    def of(scale: float) -> Tensor:
        def loss(p: Prediction) -> Tensor:
            return scale * p.velocity_error(p.x0)

        engine.regression(trajectory, Regression([1, 2], loss))
        return gradient(chain)

    assert torch.equal(of(factor) / factor, of(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_samples_are_noised_as_the_models_scheduler_noises_them(prediction_type: Any, solver: Any) -> None:
    chain = image_chain(prediction_type=prediction_type, solver=solver)
    x0, noise = torch.randn(2, 3, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
    for i, timestep in enumerate(chain.solver.timesteps):
        state = chain.noised(x0, noise, i)
        expected = chain.pipeline.scheduler.add_noise(x0, noise, timestep)
        torch.testing.assert_close(state.x, expected, rtol=1e-5, atol=1e-5)
        assert state.valid is None or not bool(state.valid.any())


def test_flow_chains_noise_as_their_scheduler_does() -> None:
    solver = flow_solver(FLOW, "euler", 4, 16)
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(FLOW)
    scheduler.set_timesteps(4)
    x0, noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    for i, timestep in enumerate(solver.timesteps):
        expected = scheduler.scale_noise(x0, timestep[None].expand(3), noise)
        torch.testing.assert_close(solver.level(i).of(x0, noise), expected)


@pytest.mark.parametrize("level", [Level(0.6, 0.4), Level(0.6, 0.8), Level(0.0, 1.0)], ids=str)
def test_velocities_differ_by_one_over_sigma_of_what_predictions_of_x0_do(level: Level) -> None:
    """Flow matching's ε - x_0 where signal and noise sum to 1, diffusion's α ε - σ x_0 where squares do."""
    x0, noise, predicted = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    x, flow = level.of(x0, noise), level.signal + level.noise == 1.0

    def velocity(x0: Tensor) -> Tensor:
        eps = (x - level.signal * x0) / level.noise
        return eps - x0 if flow else level.signal * eps - level.noise * x0

    found = Prediction(slice(0, 5), level, x0, predicted, {}).velocity_error(x0)
    torch.testing.assert_close(found, per_sample((velocity(predicted) - velocity(x0)) ** 2))


def test_levels_are_drawn_equally_often_one_from_each_part() -> None:
    drawn = [levels(3, 7, 0, Batch((), step)) for step in range(3000)]
    assert all(
        low <= i < high for one in drawn for i, (low, high) in zip(one, [(0, 3), (2, 5), (4, 7)], strict=True)
    )
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=7) / 3000
    assert float((counts - 3 / 7).abs().max()) < 4 * (3 / 7 * 4 / 7 / 3000) ** 0.5
    assert levels(5, 5, 0, Batch((), 1)) == [0, 1, 2, 3, 4]


def test_parameters_are_held_and_put_back_also_after_an_error() -> None:
    chain = trained()
    before, other = flat(chain.parameters()), torch.arange(4.0)
    with pytest.raises(KeyError), holding(chain.parameters(), other):
        assert torch.equal(flat(chain.parameters()), other)
        raise KeyError
    assert torch.equal(flat(chain.parameters()), before)


def test_a_running_mean_starts_at_the_parameters_and_follows_them_more_slowly_from_batch_to_batch() -> None:
    chain, state, mean = trained(), {}, RunningMean(most=0.5, ramp=0.2)
    expected = mean.of(state, chain.parameters()).clone()
    assert torch.equal(expected, flat(chain.parameters()))
    for step, decay in enumerate((0.2, 0.4, 0.5, 0.5)):
        with torch.no_grad():
            chain.weight.add_(1.0)
        mean.follow(state, chain.parameters(), batch_of(2, step))
        expected = decay * expected + (1 - decay) * flat(chain.parameters())
    assert torch.equal(mean.of(state, chain.parameters()), expected)


def test_a_regression_is_no_step_of_a_plan() -> None:
    with pytest.raises(ValueError, match="no step of a chain is a regression"):
        tiled([Kind.MATCH, Kind.FO], (0.0, 0.0))


@pytest.mark.parametrize("reward", [Bowl(), Distance()], ids=["more is better", "less is better"])
@pytest.mark.parametrize("options", [{}, {"micro_batch": 3}, {"graphs": "joint"}], ids=str)
def test_the_last_step_again_gives_the_mean_of_its_rewards_gradients(
    reward: Any, options: dict[str, Any]
) -> None:
    chain, copies = trained(), 3
    plan = Plan((Segment(Kind.SKIP, 0, STEPS - 1), Segment(Kind.FO, STEPS - 1, STEPS, 0.25)), (0.0,) * STEPS)
    engine = engine_of(chain, reward, **options)
    trajectory = engine.rollout([plan] * COUNT, batch_of(COUNT))
    report = engine.last_step_again(trajectory, copies)
    found = gradient(chain)
    sign = 1.0 if reward.higher_is_better else -1.0
    rewards = torch.zeros(COUNT)
    for micro in trajectory.micros:
        rows, i = list(range(len(micro.index))), STEPS - 1
        for x in [micro.states[i], *(noised(engine, micro, rows, draw) for draw in range(copies))]:
            x0 = chain.transition(x, i, micro.cond, torch.zeros(len(rows))).mean
            rewards[micro.index] += sign * reward.score(x0, micro.prompts) / (copies + 1)
    torch.testing.assert_close(found, torch.autograd.grad(rewards.mean(), chain.weight)[0].flatten())
    assert (report.forward, report.backward) == (COUNT * (STEPS + copies), COUNT * (1 + copies))
    assert report.again == COUNT * copies + (0 if options.get("graphs") == "joint" else COUNT)
    again = (rewards.mean() * (copies + 1) - trajectory.signed.mean()) / copies
    assert report.extra["reward_again"] == pytest.approx(sign * float(again), rel=1e-5)


def noised(engine: Engine, micro: MicroBatch, rows: list[int], draw: int) -> State:
    """The last step's start, from x_0 noised to its level."""
    noise = engine.roller.forward_noise(micro, STEPS - 1, rows, draw)
    return State(micro.states[-1].x * (STEPS - 1) / STEPS + noise / STEPS)
