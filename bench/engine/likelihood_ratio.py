"""Likelihood ratios: on the noise at the last step of half-order blocks, and on perturbed parameters.

With x_{i+1} = μ + σ ε and A = R - b, the cotangent of μ where a block ends is one of

    A ε/σ                              likelihood ratio (RLR paper §3.2)
    A r ∇_μ log p / …                  PPO's clipped ratio r (DDPO)
    c g + λ (ε/σ)(A - κ (v - m) - c σ εᵀg)     likelihood ratio with a control variate (v, g)

For any g that depends on x_i, θ and earlier noise but not on ε, E[c g - (ε/σ) c σ εᵀg] = c g - c E[ε εᵀ] g
= 0, and for any number v of that kind E[(ε/σ) v] = 0: so at λ = 1 the third has the mean of the first for
every c, κ, m. v is the reward of the one-step prediction x̂_0 at μ (never at x_{i+1}, which contains ε), and g
its gradient with respect to μ: the first two terms of R's expansion in ε. λ = 0 keeps c g alone, biased.

A zeroth-order step runs with θ + s z, so its gradient is A z / s, without a network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from bench.base.lazy import torch
from bench.engine.batch import Cotangent, Evaluations, MicroBatch
from bench.engine.chain import State, gaussian_log_prob, per_row
from bench.engine.control_variate import Control, Sums
from bench.engine.float16 import Product, network
from bench.engine.plan import Kind
from bench.engine.stages import ZEROTH_ORDER, stage

if TYPE_CHECKING:
    from bench.engine.rollout import Roller
    from bench.engine.world import World


@dataclass(frozen=True)
class Ppo:
    """PPO's clipped objective for one-step HO blocks (Schulman et al. 2017, eq. 7; DDPO).

    clip: the importance ratio's trust region, 1 ± clip. mean: log-probabilities averaged over latent
    dimensions, as the published codes do, instead of summed.
    """

    clip: float
    mean: bool = False


@dataclass(frozen=True)
class Surrogate:
    """g of some rows at the end of their block, σ εᵀg, and v: [rows, …], [rows] and [rows]."""

    g: torch.Tensor
    correlate: torch.Tensor
    value: torch.Tensor

    def sums(self, advantages: torch.Tensor) -> Sums:
        """What scales are fitted to. advantages: [rows]."""
        a, v, s = (x.double() for x in (advantages, self.value, self.correlate))
        return Sums(float(len(a)), *(float(x.sum()) for x in (v, v * v, a, a * v, a * s, s * s)))


class LikelihoodRatio:
    """What the noise at the end of HO blocks and the perturbations of ZO steps give one batch gradient."""

    def __init__(
        self,
        roller: Roller,
        advantages: torch.Tensor,
        evaluations: Evaluations,
        ppo: Ppo | None = None,
        control: Control | None = None,
        penalties: torch.Tensor | None = None,
    ) -> None:
        """advantages: [B], of the whole batch. evaluations: where the control variate's are counted.
        penalties: [B, T + 1], column i is subtracted from the advantages of what comes from step i on."""
        if ppo is not None and control is not None:
            raise ValueError("a control variate goes with the plain likelihood ratio, not with PPO's")
        self.roller, self.evaluations = roller, evaluations
        self.advantages = advantages.to(roller.chain.device)
        self.ppo, self.control, self.penalties = ppo, control, penalties
        self._fits: defaultdict[int, Sums] = defaultdict(Sums)  # the control variate's, by chain step

    def _advantages(self, micro: MicroBatch, rows: list[int], i: int) -> torch.Tensor:
        """Of what comes from step i on, [rows]."""
        these = micro.at([micro.index[r] for r in rows])
        known = self.advantages[these]
        return known if self.penalties is None else known - self.penalties[these, i]

    def cotangent(self, micro: MicroBatch, i: int, rows: list[int]) -> Cotangent:
        """What gives the cotangent [rows, …] of the mean of step i, where the rows' blocks end.

        The plan's weights are in it.
        """
        advantages, weight = self._advantages(micro, rows, i + 1), micro.weight[micro.at(rows), i]
        if self.ppo is not None:
            ppo = self.ppo
            return lambda mean, std: _clipped(micro, i, rows, mean, std, weight, advantages, ppo)
        if self.control is not None:
            return self._controlled(micro, i, rows, advantages, self.control)

        def plain(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
            return per_row(weight * advantages, mean) * self.roller.noise(micro, i, rows) / std

        return plain

    def _controlled(
        self, micro: MicroBatch, i: int, rows: list[int], advantages: torch.Tensor, control: Control
    ) -> Cotangent:
        found, scale = self.surrogate(micro, i, rows, control), control.scales[i]
        self._fits[i] += found.sums(advantages)
        known = scale.value * (found.value - scale.centre) + scale.slope * found.correlate
        correction = control.weight * (advantages - known)

        def controlled(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
            noise = self.roller.noise(micro, i, rows)
            cotangent = scale.slope * found.g + per_row(correction, mean) * noise / std
            return per_row(micro.weight[micro.at(rows), i], mean) * cotangent

        return controlled

    def surrogate(self, micro: MicroBatch, i: int, rows: list[int], control: Control) -> Surrogate:
        """g and v at the mean of step i; graphs (reward, then network) are freed before any other is
        built."""
        chain, last = self.roller.chain, i + 1 == self.roller.chain.steps
        these, cond = micro.at(rows), micro.cond_of(rows)
        noise, std = self.roller.noise(micro, i, rows), micro.std[i][these]
        mean = micro.states[i + 1].x[these] - std * noise
        each = 0 if last else len(rows) * chain.evaluations_per_step
        with torch.no_grad():
            x0 = mean if last else chain.predict_x0(State(mean), i + 1, cond)
        self.evaluations.forward += each
        value, slope = self.roller.reward_of(micro, rows, x0, control.mode != "value")
        if slope is None:
            return Surrogate(torch.zeros_like(mean), torch.zeros_like(value), value)
        if not last:
            seed, whole = slope, control.mode == "network"

            def product() -> Product:
                x = mean.detach().requires_grad_()
                with torch.enable_grad():
                    x0 = chain.predict_x0(State(x), i + 1, cond, x_path_only=not whole)
                return [x0], [x], [seed]

            (found,) = network(chain, i + 1).vjp(product)
            slope = torch.zeros_like(mean) if found is None else found
            self.evaluations.again += each
            self.evaluations.backward += each if whole else 0
        return Surrogate(slope, (std * noise * slope).flatten(1).sum(1), value)

    def control_fits(self, world: World) -> dict[int, Sums]:
        """What a control variate learns from, by step, over all processes: each must learn the same."""
        if self.control is None:
            return {}
        chain = self.roller.chain
        table = [astuple(self._fits[i]) for i in range(chain.steps)]
        summed = world.sum(torch.tensor(table, dtype=torch.float64, device=chain.device))
        return {i: sums for i, row in enumerate(summed.tolist()) if (sums := Sums(*row)).rows > 0}

    def zeroth_order(self, micro: MicroBatch, rows: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """(step, Σ over rows of w A z / s, flat [d]); a z shared by a sample's steps counts once."""
        pert, wanted = micro.perturbation, set(rows)
        for i in range(micro.steps):
            active = sorted(wanted.intersection(micro.rows(i, Kind.ZO)))
            if not active:
                continue
            with stage(ZEROTH_ORDER):
                z, weight = self.roller.z(micro, i, active), micro.weight[micro.at(active), i]
                gradient = (self._advantages(micro, active, i) * weight / pert.scale) @ z
            yield i, gradient
            if pert.shared:
                wanted.difference_update(active)


def _clipped(
    micro: MicroBatch,
    i: int,
    rows: list[int],
    mean: torch.Tensor,
    std: torch.Tensor,
    weight: torch.Tensor,
    advantages: torch.Tensor,
    ppo: Ppo,
) -> torch.Tensor:
    x = micro.states[i + 1].x[micro.at(rows)]
    ratio, active = ppo_ratio(micro, i, rows, gaussian_log_prob(x, mean, std), advantages, ppo)
    score = (x - mean) / std**2 / (x[0].numel() if ppo.mean else 1)
    return per_row(weight * advantages * ratio * active, mean) * score


def ppo_ratio(
    micro: MicroBatch, i: int, rows: list[int], log_prob: torch.Tensor, advantages: torch.Tensor, ppo: Ppo
) -> tuple[torch.Tensor, torch.Tensor]:
    """(importance ratio, 1 where PPO's objective has a gradient, else 0) of step i, both [rows].

    log_prob: of the rows' x_{i+1} now, [rows]. advantages: [rows].
    """
    dims = micro.states[i].x[0].numel() if ppo.mean else 1
    ratio = ((log_prob - micro.log_prob[micro.at(rows), i]) / dims).exp()
    too_large, too_small = ratio > 1 + ppo.clip, ratio < 1 - ppo.clip
    clipped = ((advantages > 0) & too_large) | ((advantages < 0) & too_small)
    return ratio, (~clipped).to(ratio.dtype)
