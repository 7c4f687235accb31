"""What half-order blocks pull back from: the likelihood ratio on the noise at their last step.

With x_{i+1} = μ + σ ε and A = R - b, the cotangent of μ is one of

    A ε/σ                              likelihood ratio (RLR paper §3.2)
    A r ∇_μ log p / …                  PPO's clipped ratio r (DDPO)
    c g + λ (ε/σ)(A - c σ εᵀg)         likelihood ratio with a control variate g

For any g that depends on x_i, θ and earlier noise but not on ε, E[c g - (ε/σ) c σ εᵀg] = c g - c E[ε εᵀ] g
= 0, so at λ = 1 the third has the mean of the first for every c. g is the reward's gradient through the
one-step prediction x̂_0 at μ (never at x_{i+1}, which contains ε). λ = 0 keeps the surrogate alone, biased.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.chain import State
from bench.method import Batch
from bench.rollout import MicroBatch, Perturbation, Roller
from bench.solvers import gaussian_log_prob, per_row


@dataclass(frozen=True)
class Clipped:
    """PPO's clipped importance ratio for one-step HO blocks (Schulman et al. 2017, eq. 7; DDPO).

    clip: the ratio's trust region 1 ± clip. mean: log-probabilities averaged over latent dimensions, as the
    published codes do, instead of summed.
    """

    clip: float
    mean: bool = False


@dataclass(frozen=True)
class Control:
    """A control variate for HO terms.

    scales: c of every step, from earlier batches only (one fitted on the batch that it serves is biased).
    weight: λ, 1 is unbiased. network: whether g goes back through the network, or only along the linear path
    of the prediction in x (no network backward).
    """

    scales: tuple[float, ...]
    weight: float = 1.0
    network: bool = True


@dataclass(frozen=True)
class Signal:
    """What HO terms are weighted with: advantages [rows of the micro-batch], and how."""

    advantages: Tensor
    ppo: Clipped | None = None
    control: Control | None = None


@dataclass(frozen=True)
class Surrogate:
    """g of some rows at the end of their block, and σ εᵀg: [rows, …] and [rows]."""

    g: Tensor
    correlate: Tensor


@dataclass
class Counts:
    """Network evaluations that pull-backs took beyond the rollout's, and what a control variate learns from.

    fits: by chain step, the sums over rows of (A σ εᵀg, (σ εᵀg)²); their ratio estimates the best c.
    """

    forward: int = 0
    backward: int = 0
    fits: dict[int, tuple[float, float]] = field(default_factory=dict)

    def fit(self, i: int, advantages: Tensor, correlate: Tensor) -> None:
        """Add rows of step i."""
        product, square = self.fits.setdefault(i, (0.0, 0.0))
        self.fits[i] = (
            product + float((advantages * correlate).sum()),
            square + float(correlate.square().sum()),
        )


class HalfOrder:
    """Cotangents of HO blocks of one batch."""

    def __init__(self, roller: Roller, batch: Batch, perturbation: Perturbation) -> None:
        self.roller, self.batch, self.perturbation = roller, batch, perturbation

    def noise(self, micro: MicroBatch, i: int, rows: list[int]) -> Tensor:
        """ε of step i, drawn again: [rows, …]."""
        return self.roller.noise(micro, self.batch, i, rows, self.perturbation)

    def cotangent(
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
        c, lam = signal.control.scales[i], signal.control.weight
        correction = lam * (signal.advantages[rows] - c * surrogate.correlate)
        seed = c * surrogate.g + per_row(correction, mean) * noise / std
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
        """g at the mean of step i; its graphs (reward, then network) are freed before any other is built."""
        chain = self.roller.chain
        noise, std = self.noise(micro, i, rows), micro.std[i][rows]
        mean = micro.states[i + 1].x[rows] - std * noise
        prompts = [micro.prompts[r] for r in rows]
        if i + 1 == chain.steps:
            g = self._reward_gradient(mean, prompts)
        else:
            cond = micro.cond.select(torch.tensor(rows, device=mean.device))
            with torch.no_grad():
                x0 = chain.predict_x0(State(mean), i + 1, cond)
            slope = self._reward_gradient(x0, prompts)
            x = mean.requires_grad_()
            with torch.enable_grad():
                x0 = chain.predict_x0(State(x), i + 1, cond, x_path_only=not control.network)
            (g,) = torch.autograd.grad(x0, x, slope)
            evaluations = len(rows) * chain.evaluations_per_step
            counts.forward += evaluations if control.network else 2 * evaluations
            counts.backward += evaluations if control.network else 0
        correlate = (std * noise * g).flatten(1).sum(1)
        return Surrogate(g, correlate)

    def _reward_gradient(self, x0: Tensor, prompts: list[str]) -> Tensor:
        grad = self.roller.reward_of(x0, prompts, need_grad=True)[1]
        assert grad is not None  # asked for
        return grad


def ppo_ratio(
    micro: MicroBatch, i: int, rows: list[int], log_prob: Tensor, advantages: Tensor, ppo: Clipped
) -> tuple[Tensor, Tensor]:
    """(importance ratio, 1 where PPO's objective has a gradient, else 0) of step i, both [rows]."""
    dims = micro.states[i].x[0].numel() if ppo.mean else 1
    ratio = ((log_prob - micro.log_prob[rows, i]) / dims).exp()
    a = advantages[rows]
    clipped = ((a > 0) & (ratio > 1 + ppo.clip)) | ((a < 0) & (ratio < 1 - ppo.clip))
    return ratio, (~clipped).to(ratio.dtype)
