"""Advantage Weighted Matching: its gradient against autograd and in closed form, its fixed point, its kin."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import bench.engine.rollout
from bench.base.strict import Strict
from bench.engine.batch import Batch, Report
from bench.engine.final_samples import OLDER, flat, holding
from methods.awm import Awm, AwmConfig
from methods.nft import NftConfig
from tests.methods.test_nft import Linear, moved, nft, noised, one_step, optimality
from tests.models.test_flow_chain import REWARD, STEPS, chain_of
from tests.support import fast_streams
from tests.support.toys import batch_of, engine_of, gradient

COUNT = 6


def awm(steps: int = STEPS, **settings: Any) -> Awm:
    """With these settings, at all levels."""
    return Awm(AwmConfig.model_validate({"levels": None, "until": 1.0} | settings), steps)


def test_gradient_is_that_of_the_papers_loss_on_velocities() -> None:
    """A σ (l + δ)^(1/4) · 4 with l = |v - (ε - x_0)|², and two differences of velocities."""
    chain = moved(chain_of("euler"))
    older, method, batch = flat(chain.parameters()) * 0.5, awm(kl=0.3, kl_older=0.2), batch_of(COUNT)
    method.state[OLDER] = older
    report = next(iter(method.updates(engine_of(chain, REWARD, micro_batch=4), batch)))
    found, losses = gradient(chain), []
    advantage = 2 * optimality(report.rewards) - 1
    for x0, x, sigma in noised(engine_of(chain, REWARD), batch, flat(chain.parameters()), [0, 1, 2, 3]):
        eps, v = (x - (1 - sigma) * x0) / sigma, chain.velocity(x, False)
        with torch.no_grad():
            with holding(chain.parameters(), older):
                v_old = chain.velocity(x, False)
            with chain.reference():
                v_ref = chain.velocity(x, False)
        matched = advantage * sigma * 4 * (v - (eps - x0)).square().mean(1) ** 0.25
        losses.append(matched + 0.3 * (v - v_ref).square().mean(1) + 0.2 * (v - v_old).square().mean(1))
    loss = torch.stack(losses).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-loss, chain.parameters())])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_plain_weighted_loss_has_the_gradient_that_is_written_out() -> None:
    """-∂/∂b A |v - (ε - x_0)|² with v = W x + b is -2 A (v - ε + x_0) / D, and its product with x for W."""
    chain, batch = moved(chain_of("euler")), batch_of(COUNT)
    engine = engine_of(chain, REWARD)
    method = awm(power=1.0, noise_power=0.0, kl=0.0, kl_older=0.0)
    report = next(iter(method.updates(engine, batch)))
    found, advantage = gradient(chain), 2 * optimality(report.rewards) - 1
    weight, drift = torch.zeros(2, 2), torch.zeros(2)
    for x0, x, sigma in noised(engine, batch, flat(chain.parameters()), [0, 1, 2, 3]):
        error = (x @ chain.weight.T + chain.drift).detach() - (x - x0) / sigma  # ε - x_0
        slope = -advantage[:, None] * error  # 2/D is 1
        drift += slope.mean(0) / 4
        weight += slope.T @ x / COUNT / 4
    torch.testing.assert_close(found, torch.cat([weight.flatten(), drift]), rtol=1e-4, atol=1e-5)
    assert not method.state


@pytest.mark.slow
@pytest.mark.parametrize("way", [0.0, 1.0, 2.0])
def test_the_fixed_point_is_the_older_model_moved_by_the_covariance_with_the_reward(
    way: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DiffusionNFT's with β = kl_older: x̂_0 = o + s, where the gradient of the drift is 0 on average."""
    monkeypatch.setattr(bench.engine.rollout, "normal", fast_streams.normal)
    chain, reward, strength = one_step(), Linear(1.0, -0.5), 0.5
    older = flat(chain.parameters())
    covariance = (torch.eye(2) - chain.weight) @ (torch.eye(2) - chain.weight).T
    shift = (covariance @ reward.a / (strength * 5 * (reward.a @ covariance @ reward.a).sqrt())).detach()
    method = awm(1, power=1.0, noise_power=0.0, kl=0.0, kl_older=strength)
    found = []
    for step in range(40):
        method.state[OLDER] = older
        batch = Batch(tuple(str(b // 8) for b in range(1024)), step)
        with torch.no_grad():
            chain.drift.copy_(older[4:])  # who makes the samples
        engine = engine_of(chain, reward, micro_batch=1024)
        updates = Moved(engine, -way * shift)
        next(iter(method.updates(updates, batch)))  # type: ignore[arg-type]
        found.append(gradient(chain)[4:])
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 40**0.5
    expected = -strength * (1 - way) * shift
    assert bool(((mean - expected).abs() < 4 * error).all()), f"{mean} ± {error}, expected {expected}"
    assert float(error.max()) < 0.1 * strength * float(shift.norm())


class Moved:
    """An engine whose model moves between the samples and the gradient: x̂_0 = x - W x - b - by."""

    def __init__(self, engine: Any, by: Tensor) -> None:
        self.engine, self.by = engine, by

    def regression(self, *args: Any) -> Report:
        """The engine's, at the moved parameters."""
        with torch.no_grad():
            self.engine.chain.drift += self.by
        return self.engine.regression(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_at_the_older_model_it_is_diffusion_nft_without_its_adaptive_weights() -> None:
    """At pure noise, where the velocity's loss is that of x̂_0; theirs has a factor A_max."""
    found = []
    for method in (nft(1, kl=0.0, adaptive=False), awm(1, power=1.0, noise_power=0.0, kl=0.0)):
        chain = one_step()
        next(iter(method.updates(engine_of(chain, REWARD), batch_of(COUNT))))
        found.append(gradient(chain))
    torch.testing.assert_close(found[0], 5 * found[1])


def test_only_models_with_a_weight_are_evaluated() -> None:
    def report(**settings: Any) -> Report:
        return next(iter(awm(**settings).updates(engine_of(chain_of("euler"), REWARD), batch_of(COUNT))))

    assert report().forward == COUNT * (STEPS + 3 * STEPS)
    assert report(kl=0.0).forward == COUNT * (STEPS + 2 * STEPS)
    assert report(kl=0.0, kl_older=0.0, levels=3).forward == COUNT * (STEPS + 3)
    assert awm(10, until=0.9).until == 9


@pytest.mark.parametrize("config", [AwmConfig, NftConfig])
def test_without_a_baseline_every_sample_would_be_imitated_so_there_is_none(config: type[Strict]) -> None:
    with pytest.raises(ValidationError, match="baseline"):
        config.model_validate({"baseline": "none"})
