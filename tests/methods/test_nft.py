"""DiffusionNFT: its gradient in closed form, its fixed point, and the older model that it samples with."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import bench.engine.rollout
from bench.base.errors import BenchError
from bench.engine.batch import Batch, Report
from bench.engine.chain import Chain
from bench.engine.engine import Engine
from bench.engine.final_samples import OLDER, final_samples, flat, holding, levels
from bench.engine.reward import Reward
from bench.models.flow import FlowSolver
from examples.linear_gaussian import QuadraticReward
from methods.nft import Nft, NftConfig
from tests.models.test_flow_chain import REWARD, STEPS, VelocityChain, chain_of
from tests.support import fast_streams
from tests.support.pipelines import image_chain
from tests.support.sd3 import sd3_chain
from tests.support.toys import Distance, Pattern, batch_of, engine_of, gradient
from tests.support.videos import video_chain

COUNT = 6


@pytest.fixture
def _fast_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)


def nft(steps: int = STEPS, **settings: Any) -> Nft:
    """With these settings."""
    return Nft(NftConfig.model_validate(settings), steps)


def moved(chain: VelocityChain) -> VelocityChain:
    """With other parameters than the reference's."""
    with torch.no_grad():
        chain.weight.add_(torch.tensor([[0.2, -0.1], [0.3, 0.1]]))
        chain.drift.sub_(0.2)
    return chain


def noised(
    engine: Engine, batch: Batch, older: Tensor, steps: list[int]
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """x_0 of the batch, made by older parameters, with x and σ of every level."""
    (micro,) = final_samples(engine, batch, STEPS, older).micros
    x0, rows = micro.states[-1].x, list(range(len(batch.prompts)))
    for draw, i in enumerate(steps):
        sigma = 1 - i / STEPS
        yield x0, (1 - sigma) * x0 + sigma * engine.roller.forward_noise(micro, i, rows, draw), sigma


def optimality(rewards: Tensor) -> Tensor:
    """r of samples of which two follow each other for each prompt: against the other one."""
    difference = rewards - rewards.reshape(-1, 2).flip(1).flatten()
    return (difference / rewards.std(unbiased=False) / 5 / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_gradient_is_that_of_the_papers_loss_on_velocities(beta: float) -> None:
    """v⁺ = β v + (1 - β) v_old, v⁻ = (1 + β) v_old - β v, x̂_0 = x - σ v, and KL on velocities."""
    chain, steps = moved(chain_of("euler")), [0, 1, 2, 3]
    older = flat(chain.parameters()) * 0.5
    method, batch = nft(beta=beta, kl=0.3), batch_of(COUNT)
    method.state[OLDER] = older
    engine = engine_of(chain, REWARD, micro_batch=4)
    report = next(iter(method.updates(engine, batch)))
    found, r, losses = gradient(chain), optimality(report.rewards), []
    for x0, x, sigma in noised(engine_of(chain, REWARD), batch, older, steps):
        with torch.no_grad():
            with holding(chain.parameters(), older):
                v_old = chain.velocity(x, False)
            with chain.reference():
                v_ref = chain.velocity(x, False)
        v = chain.velocity(x, False)
        loss = 0.3 * (v - v_ref).square().mean(1)
        for sign, share in ((1, r), (-1, 1 - r)):
            error = x - sigma * (v_old + sign * beta * (v - v_old)) - x0
            loss = loss + 5 / beta * share * error.square().mean(1) / error.detach().abs().mean(1)
        losses.append(loss.mean())
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(-loss, chain.parameters())
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-5)
    assert report.extra["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_at_the_older_model_it_is_the_advantage_weighted_matching_gradient_in_closed_form() -> None:
    """-∂/∂b A |x̂_0 - x_0|² / w with x̂_0 = x - σ (W x + b) is 2 A σ (x̂_0 - x_0) / (w D), written out."""
    chain = moved(chain_of("euler"))
    method, batch = nft(kl=0.0), batch_of(COUNT)
    engine = engine_of(chain, REWARD)
    report = next(iter(method.updates(engine, batch)))
    advantage = 5 * (2 * optimality(report.rewards) - 1)
    weight, drift = torch.zeros(2, 2), torch.zeros(2)
    older = flat(chain.parameters())
    for x0, x, sigma in noised(engine, batch, older, [0, 1, 2, 3]):
        error = x - sigma * (x @ chain.weight.T + chain.drift).detach() - x0
        size = error.abs().mean(1)
        slope = (advantage / size)[:, None] * sigma * error  # 2/D is 1
        drift += slope.mean(0) / 4
        weight += slope.T @ x / COUNT / 4
    torch.testing.assert_close(gradient(chain), torch.cat([weight.flatten(), drift]), rtol=1e-4, atol=1e-5)


class Linear(Reward):
    """a · x."""

    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "a number"

    def __init__(self, *a: float) -> None:
        """a: [D]."""
        self.a = torch.tensor(a)

    def score(self, media: Tensor, prompts: Any) -> Tensor:
        """[B] of media [B, D]."""
        return media @ self.a


def one_step() -> VelocityChain:
    """x_0 = (1 - W) x_T - b in a single step, so x_0 ~ N(-b, (1 - W)(1 - W)ᵀ)."""
    chain = VelocityChain(
        FlowSolver("euler", torch.tensor([1000.0]), torch.tensor([1.0]), torch.tensor([0.0]))
    )
    chain.steps = 1
    return chain


def with_the_samples(
    reward: Linear | QuadraticReward, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Cov(R, x_0) [D] and the standard deviation of R, for x_0 ~ N(mean, covariance).

    With y = x_0 - mean, R is g · y - |y|²/2 and a constant (g · y of the linear one). The third moments of y
    are 0, so neither covariance has a mixed part: Cov(R, y) = Σ g, Var R = gᵀ Σ g + tr(Σ²)/2.
    """
    linear = isinstance(reward, Linear)
    slope = reward.a if isinstance(reward, Linear) else reward.goal - mean
    curved = 0.0 if linear else (covariance @ covariance).trace() / 2
    return covariance @ slope, (slope @ covariance @ slope + curved).sqrt()


@pytest.mark.slow
@pytest.mark.usefixtures("_fast_streams")
@pytest.mark.parametrize(
    ("reward", "most", "beta"),
    [(Linear(1.0, -0.5), 5.0, 0.5), (Linear(1.0, -0.5), 5.0, 1.0), (REWARD, 20.0, 0.5)],
    ids=["linear-0.5", "linear-1", "quadratic"],
)
@pytest.mark.parametrize("way", [0.0, 1.0, 2.0])
def test_the_fixed_point_is_the_older_model_moved_by_the_covariance_with_the_reward(
    way: float, reward: Linear | QuadraticReward, most: float, beta: float
) -> None:
    """With Gaussian samples and pure noise, the loss is least at x̂_0 = o + s with s = E[A (x_0 - o)] / (β
    A_max), A = (R - E R) / std R. At o + way · s the gradient of -b is 2 A_max β (1 - way) s / D, towards
    that; W has none, as E A = 0. A quadratic reward's tail is long: A_max is where nothing is cut off."""
    chain = one_step()
    older, (weight, drift) = flat(chain.parameters()), (p.detach() for p in chain.parameters())
    covariance, std = with_the_samples(reward, -drift, (torch.eye(2) - weight) @ (torch.eye(2) - weight).T)
    shift = covariance / std / (beta * most)
    with torch.no_grad():
        chain.drift.sub_(way * shift)  # x̂_0 = x - W x - b
    method = nft(1, beta=beta, advantage_max=most, kl=0.0, adaptive=False)
    found = []
    for step in range(40):
        method.state[OLDER] = older
        batch = Batch(tuple(str(b // 8) for b in range(1024)), step)
        next(iter(method.updates(engine_of(chain, reward, micro_batch=1024), batch)))
        found.append(gradient(chain))
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 40**0.5
    expected = torch.cat(
        [torch.zeros(4), -most * beta * (1 - way) * shift]
    )  # of b: its ascent moves x̂_0 down
    assert bool(((mean - expected).abs() < 4 * error).all()), f"{mean} ± {error}, expected {expected}"
    assert float(error.max()) < 0.1 * most * beta * float(shift.norm())


def test_samples_are_the_older_models_which_follows_after_the_optimizer_step() -> None:
    chain, reward = moved(chain_of("euler")), Pattern()
    first, method = flat(chain.parameters()), nft(decay=0.5, ramp=0.25)
    rewards: list[Report] = []
    for step, decay in enumerate((0.25, 0.5)):
        expected = method.state.get(OLDER, first)
        with holding(chain.parameters(), expected):
            with_older = final_rewards(chain, reward, step)
        for report in method.updates(engine_of(chain, reward), batch_of(COUNT, step)):
            rewards.append(report)
            torch.testing.assert_close(report.rewards, with_older)
            with torch.no_grad():
                chain.weight.add_(0.5)
        torch.testing.assert_close(
            method.state[OLDER], decay * expected + (1 - decay) * flat(chain.parameters())
        )
    assert not torch.equal(final_rewards(chain, reward, 1), rewards[-1].rewards)


def final_rewards(chain: Chain, reward: Reward, step: int) -> Tensor:
    """Of the deterministic chain's samples."""
    return final_samples(engine_of(chain, reward), batch_of(COUNT, step), STEPS).rewards


def test_rewards_that_are_better_when_small_turn_the_direction_around() -> None:
    found = []
    for reward in (Pattern(), Distance()):
        chain = moved(chain_of("euler"))
        next(iter(nft(kl=0.0).updates(engine_of(chain, reward), batch_of(COUNT))))
        found.append(gradient(chain))
    torch.testing.assert_close(found[0], -found[1])


def test_without_kl_the_reference_is_not_evaluated_and_levels_can_be_drawn() -> None:
    def report(**settings: Any) -> Report:
        return next(iter(nft(**settings).updates(engine_of(chain_of("euler"), REWARD), batch_of(COUNT))))

    assert report().forward == COUNT * (STEPS + 3 * STEPS)
    assert report(kl=0.0).forward == COUNT * (STEPS + 2 * STEPS)
    some = report(kl=0.0, levels=3)
    assert (some.forward, some.backward, some.again) == (COUNT * (STEPS + 2 * 3), COUNT * 3, 0)
    assert nft(until=0.5).count == 2 and levels(2, nft(until=0.5).until, 0, batch_of(2)) == [0, 1]


def test_prompts_need_another_sample() -> None:
    with pytest.raises(BenchError, match=r"raise train\.samples_per_prompt"):
        next(iter(nft().updates(engine_of(chain_of("euler"), REWARD), Batch(("a", "b"), 0))))


@pytest.mark.slow
@pytest.mark.parametrize(
    "chain",
    [lambda: image_chain(solver="dpmpp"), lambda: sd3_chain(), lambda: video_chain()],
    ids=["dpmpp", "flow", "video"],
)
def test_it_runs_on_every_kind_of_chain_in_any_micro_batches(chain: Any) -> None:
    found = []
    for micro_batch in (4, 3):  # four samples, at once or not
        made = chain()
        method = nft(made.steps, kl=0.1, levels=2)
        method.state[OLDER] = flat(made.parameters()) * 0.9
        next(iter(method.updates(engine_of(made, Pattern(), micro_batch=micro_batch), batch_of(4))))
        found.append(gradient(made))
    assert bool(found[0].isfinite().all()) and float(found[0].norm()) > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4 * float(found[0].abs().max()))
