"""Adjoint matching's regression at one step (Domingo-Enrich et al. 2024, arXiv:2409.08861, eq. 38 to 41).

Let μ and μ⁰ be the mean of a step with and without the adapter, σ its noise, u = (μ - μ⁰)/σ the shift and λ
the reward's scale. The adjoint a is dR/dx_0, pulled back through μ⁰ alone (the paper's lean adjoint, and its
control is u). The loss |u - λ σ a|² / 2λ has, with x_i and a held fixed, the descent direction

    J_θ(μ)ᵀ (r/σ),   r = σ a - u/λ,

so that the cotangent of a step's mean is r/σ.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.base.lazy import torch
from bench.engine.chain import per_row
from bench.engine.likelihood_ratio import Cotangent


@dataclass(frozen=True)
class Matching:
    """What an adjoint is matched with.

    reward_scale: λ; one over it is the weight of the KL divergence from the model that training starts from.
    clip: where |r|² is more than that, a sample's step is left out (the paper's loss clipping); None: never.
    """

    reward_scale: float = 1.0
    clip: float | None = None

    def cotangent(self, adjoint: torch.Tensor, reference: torch.Tensor, weight: torch.Tensor) -> Cotangent:
        """Of a step's mean. adjoint, reference: a of x_{i+1} and μ⁰, [rows, …]. weight: the plan's,
        [rows]."""

        def matched(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
            residual = std * adjoint - (mean - reference) / (self.reward_scale * std)
            factor = weight
            if self.clip is not None:
                factor = weight * (residual.flatten(1).square().sum(1) <= self.clip)
            return per_row(factor, residual) * residual / std

        return matched
