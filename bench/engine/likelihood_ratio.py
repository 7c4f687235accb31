"""What half-order blocks pull back from: the likelihood ratio on the noise at their last step.

With x_{i+1} = μ + σ ε and A = R - b, the cotangent of μ is one of

    A ε/σ                              likelihood ratio (RLR paper §3.2)
    A r ∇_μ log p / …                  PPO's clipped ratio r (DDPO)
    c g + λ (ε/σ)(A - κ (v - m) - c σ εᵀg)     likelihood ratio with a control variate (v, g)

For any g that depends on x_i, θ and earlier noise but not on ε, E[c g - (ε/σ) c σ εᵀg] = c g - c E[ε εᵀ] g
= 0, and for any number v of that kind E[(ε/σ) v] = 0: so at λ = 1 the third has the mean of the first for
every c, κ, m. v is the reward of the one-step prediction x̂_0 at μ (never at x_{i+1}, which contains ε), and g
its gradient with respect to μ: the first two terms of R's expansion in ε. λ = 0 keeps c g alone, biased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.chain import State
from bench.engine.control_variate import Control, Sums, added
from bench.engine.gaussian import gaussian_log_prob, per_row
from bench.engine.micro_batch import MicroBatch, Perturbation
from bench.engine.rollout import Roller


@dataclass(frozen=True)
class Clipped:
    """PPO's clipped importance ratio for one-step HO blocks (Schulman et al. 2017, eq. 7; DDPO).

    clip: the ratio's trust region 1 ± clip. mean: log-probabilities averaged over latent dimensions, as the
    published codes do, instead of summed.
    """

    clip: float
    mean: bool = False


@dataclass(frozen=True)
class Signal:
    """What HO terms are weighted with: advantages [rows of the micro-batch], and how."""

    advantages: Tensor
    ppo: Clipped | None = None
    control: Control | None = None


@dataclass(frozen=True)
class Surrogate:
    """g of some rows at the end of their block, σ εᵀg, and v: [rows, …], [rows] and [rows]."""

    g: Tensor
    correlate: Tensor
    value: Tensor


@dataclass
class Counts:
    """Network evaluations that pull-backs took beyond the rollout's, and what a control variate learns from.

    fits: by chain step, what `scale_of` takes.
    """

    forward: int = 0
    backward: int = 0
    fits: dict[int, Sums] = field(default_factory=dict)

    def fit(self, i: int, advantages: Tensor, found: Surrogate) -> None:
        """Add rows of step i."""
        a, v, s = (x.double() for x in (advantages, found.value, found.correlate))
        new = (float(len(a)), *(float(x.sum()) for x in (v, v * v, a, a * v, a * s, s * s)))
        old = self.fits[i] if i in self.fits else (0.0,) * len(new)
        self.fits[i] = added(old, new)


class HalfOrder:
    """Cotangents of HO blocks of one batch."""

    def __init__(self, roller: Roller, batch: Batch, perturbation: Perturbation) -> None:
        self.roller, self.batch, self.perturbation = roller, batch, perturbation

    def noise(self, micro: MicroBatch, i: int, rows: list[int]) -> Tensor:
        """ε of step i, drawn again: [rows, …]."""
        return self.roller.noise(micro, self.batch, i, rows, self.perturbation)

    def seed(
        self, micro: MicroBatch, i: int, rows: list[int], signal: Signal, counts: Counts
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """What turns (mean, std) of step i, where the rows' blocks end, into the cotangent of the mean."""
        surrogate: Surrogate | None = None
        if signal.control is not None:
            surrogate = self.surrogate(micro, i, rows, signal.control, counts)
            counts.fit(i, signal.advantages[rows], surrogate)
        return lambda mean, std: self._cotangent(micro, i, rows, mean, std, signal, surrogate)

    def _cotangent(
        self,
        micro: MicroBatch,
        i: int,
        rows: list[int],
        mean: Tensor,
        std: Tensor,
        signal: Signal,
        surrogate: Surrogate | None,
    ) -> Tensor:
        """Of the mean of step i, where the rows' blocks end, plan weight included: [rows, …].

        mean, std: recomputed, [rows, …].
        """
        weight = micro.weight[rows, i]
        if signal.ppo is not None:
            return self._clipped(micro, i, rows, mean, std, weight, signal, signal.ppo)
        noise = self.noise(micro, i, rows)
        if surrogate is None or signal.control is None:
            return per_row(weight * signal.advantages[rows], mean) * noise / std
        scale = signal.control.scales[i]
        known = scale.value * (surrogate.value - scale.centre) + scale.slope * surrogate.correlate
        correction = signal.control.weight * (signal.advantages[rows] - known)
        seed = scale.slope * surrogate.g + per_row(correction, mean) * noise / std
        return per_row(weight, mean) * seed

    def _clipped(
        self,
        micro: MicroBatch,
        i: int,
        rows: list[int],
        mean: Tensor,
        std: Tensor,
        weight: Tensor,
        signal: Signal,
        ppo: Clipped,
    ) -> Tensor:
        x, a = micro.states[i + 1].x[rows], signal.advantages[rows]
        log_prob = gaussian_log_prob(x, mean, std)
        ratio, active = ppo_ratio(micro, i, rows, log_prob, signal.advantages, ppo)
        score = (x - mean) / std**2 / (x[0].numel() if ppo.mean else 1)
        return per_row(weight * a * ratio * active, mean) * score

    def surrogate(
        self, micro: MicroBatch, i: int, rows: list[int], control: Control, counts: Counts
    ) -> Surrogate:
        """g and v at the mean of step i; graphs (reward, then network) are freed before any other is
        built."""
        chain, last = self.roller.chain, i + 1 == self.roller.chain.steps
        noise, std = self.noise(micro, i, rows), micro.std[i][rows]
        mean = micro.states[i + 1].x[rows] - std * noise
        cond = micro.cond.select(torch.tensor(rows, device=mean.device))
        evaluations = 0 if last else len(rows) * chain.evaluations_per_step
        with torch.no_grad():
            x0 = mean if last else chain.predict_x0(State(mean), i + 1, cond)
        counts.forward += evaluations
        prompts = [micro.prompts[r] for r in rows]
        frames = None if micro.frames is None else micro.frames[rows]
        value, slope = self.roller.reward_of(x0, prompts, control.mode != "value", frames)
        if slope is None:
            return Surrogate(torch.zeros_like(mean), torch.zeros_like(value), value)
        if not last:
            x, network = mean.requires_grad_(), control.mode == "network"
            with torch.enable_grad():
                x0 = chain.predict_x0(State(x), i + 1, cond, x_path_only=not network)
            (slope,) = torch.autograd.grad(x0, x, slope)
            counts.forward += 0 if network else evaluations
            counts.backward += evaluations if network else 0
        return Surrogate(slope, (std * noise * slope).flatten(1).sum(1), value)


def ppo_ratio(
    micro: MicroBatch, i: int, rows: list[int], log_prob: Tensor, advantages: Tensor, ppo: Clipped
) -> tuple[Tensor, Tensor]:
    """(importance ratio, 1 where PPO's objective has a gradient, else 0) of step i, both [rows]."""
    dims = micro.states[i].x[0].numel() if ppo.mean else 1
    ratio = ((log_prob - micro.log_prob[rows, i]) / dims).exp()
    a = advantages[rows]
    clipped = ((a > 0) & (ratio > 1 + ppo.clip)) | ((a < 0) & (ratio < 1 - ppo.clip))
    return ratio, (~clipped).to(ratio.dtype)
