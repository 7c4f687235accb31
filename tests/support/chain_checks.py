"""What every chain of a transformer must do, held to autograd on small random networks."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.engine.reward import scores
from bench.models.latent_chain import LatentChain
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, flat, gradient

SEGMENTS = (Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 3), Segment(Kind.FO, 3, 4))


def _close(chain: LatentChain, expected: Tensor) -> None:
    assert float(expected.norm()) > 0
    assert float((gradient(chain) - expected).norm() / expected.norm()) < 1e-4


def full_backpropagation_is_autograds(chain: LatentChain) -> None:
    """A chain of three steps with noise at each; the engine keeps one step's graph at a time."""
    plan, batch, eta = Plan((Segment(Kind.FO, 0, 3),), (0.4, 0.4, 0.4)), batch_of(2), torch.full((2,), 0.4)
    reward = Pattern()
    engine = engine_of(chain, reward, micro_batch=2)
    trajectory = engine.rollout([plan] * 2, batch)
    engine.gradient(trajectory, torch.zeros(2))
    (micro,) = trajectory.micros
    state = chain.prior(engine.roller.noise(micro, -1, [0, 1]))
    for i in range(3):
        step = chain.transition(state, i, micro.cond, eta)
        state = step.next_state(step.mean + step.std * engine.roller.noise(micro, i, [0, 1]))
    scored = scores(reward, chain.decode(state.x), batch.prompts)
    torch.testing.assert_close(scored.detach(), trajectory.rewards, rtol=1e-4, atol=1e-4)
    _close(chain, flat(torch.autograd.grad(scored.mean(), chain.parameters())))


def half_order_is_the_likelihood_ratio(chain: LatentChain) -> None:
    """A D_θ log p(x_2 | x_1) of a chain of three steps, by autograd through the density itself."""
    plan = tiled([Kind.SKIP, Kind.HO, Kind.SKIP], (0.0, 0.7, 0.0))
    engine, advantages = engine_of(chain, Pattern(), micro_batch=2), torch.tensor([1.5, -0.5])
    trajectory = engine.rollout([plan] * 2, batch_of(2))
    engine.gradient(trajectory, advantages)
    (micro,) = trajectory.micros
    step = chain.transition(State(micro.states[1].x), 1, micro.cond, torch.full((2,), 0.7))
    law = torch.distributions.Normal(step.mean, step.std.detach().expand_as(step.mean))
    log_prob = law.log_prob(micro.states[2].x).flatten(1).sum(1)
    _close(chain, flat(torch.autograd.grad((advantages * log_prob).mean(), chain.parameters())))


def a_perturbed_row_runs_with_its_own_parameters(make: Callable[..., LatentChain]) -> None:
    """make: the same chain each time, of so many steps."""
    chain = make(steps=3)
    x = torch.randn(3, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
    cond = chain.condition(PROMPTS[:3])
    size = sum(p.numel() for p in chain.parameters())
    delta, eta = 0.2 * torch.randn(3, size, generator=torch.Generator().manual_seed(1)), torch.zeros(3)
    with torch.no_grad(), chain.perturbed(delta):
        together = chain.transition(State(x), 1, cond, eta).mean
    for b in range(3):
        alone, before = make(steps=3), 0
        with torch.no_grad():
            for p in alone.parameters():
                p += delta[b, before : before + p.numel()].view_as(p)
                before += p.numel()
            own = alone.transition(State(x[[b]]), 1, cond.select(torch.tensor([b])), eta[[b]]).mean
        torch.testing.assert_close(together[[b]], own, rtol=1e-4, atol=1e-4)


def settings_change_no_gradient(make: Callable[..., LatentChain], settings: Mapping[str, Any]) -> None:
    """make: the same chain each time, of four steps, with settings of the model."""
    plan, found = Plan(SEGMENTS, (0, 0, 0.5, 0)), []
    for chosen in ({}, settings):
        chain = make(**chosen)
        engine = engine_of(chain, Pattern(), micro_batch=2, offload=chain.config.offload)
        trajectory = engine.rollout([plan] * 2, batch_of(2), Perturbation(scale=0.3))
        engine.gradient(trajectory, torch.tensor([1.0, -2.0]))
        found.append(gradient(chain))
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 1e-5
