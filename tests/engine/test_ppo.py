"""PPO's clipped ratio: exactly 1 before the first update, autograd of its objective after."""

from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.likelihood_ratio
from bench.engine.batch import Trajectory
from bench.engine.chain import Chain, gaussian_log_prob
from bench.engine.likelihood_ratio import Ppo
from bench.engine.plan import Kind, tiled
from tests.support.pipelines import image_chain
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, Pattern, batch_of, engine_of, flat, gradient

ADVANTAGES = torch.tensor([1.5, -0.5, -2.0, 1.0, 0.3, -0.3])


def likelihood_ratio_plan(steps: int) -> Any:
    """DDPO's."""
    return tiled([Kind.HO] * steps, [1.0] * steps)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_ratio_is_exactly_1_at_unchanged_parameters(
    dtype: str, mean: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def recorded(*args: Any) -> tuple[Tensor, Tensor]:
        seen.append(ratio_of(*args)[0])
        return ratio_of(*args)

    ratio_of = bench.engine.likelihood_ratio.ppo_ratio
    monkeypatch.setattr(bench.engine.likelihood_ratio, "ppo_ratio", recorded)
    chain = image_chain(dtype=dtype, steps=3, gradient_checkpointing=checkpointing)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    trajectory = engine.rollout([likelihood_ratio_plan(3)] * 4, batch_of(4))
    engine.gradient(trajectory, ADVANTAGES[:4], ppo=Ppo(1e-4, mean))
    assert len(seen) == 6
    assert all(bool((ratio == 1).all()) for ratio in seen)


@pytest.mark.slow
def test_first_update_is_the_plain_likelihood_ratio_gradient() -> None:
    chain = image_chain(steps=2)
    engine = engine_of(chain, Pattern())
    trajectory = engine.rollout([likelihood_ratio_plan(2)] * 4, batch_of(4))
    found = {}
    for name, ppo in {"plain": None, "sum": Ppo(1e-4), "mean": Ppo(1e-4, mean=True)}.items():
        engine.gradient(trajectory, ADVANTAGES[:4], ppo=ppo)
        found[name] = gradient(chain)
    dims = torch.Size(chain.latent_shape).numel()
    torch.testing.assert_close(found["sum"], found["plain"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["mean"] * dims, found["sum"])


def objective(chain: Chain, trajectory: Trajectory, ppo: Ppo) -> tuple[Tensor, list[float]]:
    """PPO's objective (Schulman et al. 2017, eq. 7), summed over steps, averaged over samples; all ratios."""
    total, ratios = torch.zeros(()), []
    for micro in trajectory.micros:
        a = ADVANTAGES[micro.index]
        for i in range(chain.steps):
            out = chain.transition(micro.states[i], i, micro.cond, micro.eta[:, i])
            log_prob = gaussian_log_prob(micro.states[i + 1].x, out.mean, out.std)
            difference = log_prob - micro.log_prob[:, i]
            ratio = (difference / (torch.Size(chain.latent_shape).numel() if ppo.mean else 1)).exp()
            total = total + torch.minimum(ratio * a, ratio.clamp(1 - ppo.clip, 1 + ppo.clip) * a).sum()
            ratios += ratio.tolist()
    return total / len(trajectory.batch.prompts), ratios


@pytest.mark.slow
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("image", [True, False])
def test_clipped_gradient_after_an_update_is_autograds_of_ppos_objective(mean: bool, image: bool) -> None:
    chain: Chain = image_chain(steps=3) if image else ToyChain(3, 2, noise=0.7)
    engine = engine_of(chain, Pattern() if image else Bowl(), micro_batch=4)
    trajectory = engine.rollout([likelihood_ratio_plan(3)] * 6, batch_of(6))
    with torch.no_grad():
        for p in chain.parameters():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    _, ratios = objective(chain, trajectory, Ppo(1.0, mean))
    ppo = Ppo(float(torch.tensor([abs(r - 1) for r in ratios]).median()), mean)
    engine.gradient(trajectory, ADVANTAGES, ppo=ppo)
    expected = torch.autograd.grad(objective(chain, trajectory, ppo)[0], chain.parameters())
    assert any(r > 1 for r in ratios)
    assert any(r < 1 for r in ratios)
    assert float((gradient(chain) - flat(expected)).norm() / flat(expected).norm()) < 1e-3
