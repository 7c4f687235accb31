"""Reverse transitions of the diffusion solvers as pure functions: mean and standard deviation of x_prev given
x.

Symbols as in the papers: abar_t = alphas_cumprod at the step's timestep ("a_t" in code), x_t = sqrt(a_t) x_0
+ sqrt(1 - a_t) eps. "prev" is the less noisy end of the step. eta scales the injected noise: 0 is
deterministic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.engine.chain import Transition, per_row

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def split_prediction(output: Tensor, x: Tensor, a_t: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    """(x_0 prediction, eps prediction) from the network's output.

    output, x: [B, …]; a_t: scalar tensor. prediction_type: "epsilon", "v_prediction" (Salimans & Ho 2022) or
    "sample". Raises ValueError for any other.
    """
    alpha, sigma = a_t.sqrt(), (1 - a_t).sqrt()
    if prediction_type == "epsilon":
        return (x - sigma * output) / alpha, output
    if prediction_type == "v_prediction":
        return alpha * x - sigma * output, alpha * output + sigma * x
    if prediction_type == "sample":
        return output, (x - alpha * output) / sigma
    raise ValueError(f"unknown prediction type '{prediction_type}'")


def ddim_transition(x0: Tensor, eps: Tensor, a_t: Tensor, a_prev: Tensor, eta: Tensor) -> Transition:
    """Mean and std of q(x_prev | x), DDIM (Song et al. 2021, eq. 12 and 16).

    x0, eps: [B, …] predictions at x_t. a_t, a_prev: scalar cumulative alphas. eta: [B], 0 gives std = 0,
    1 the DDPM posterior. std is [B, 1, …]. Differentiable in x0 and eps.
    """
    std = per_row(eta, x0) * ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)).clamp(min=0).sqrt()
    mean = a_prev.sqrt() * x0 + (1 - a_prev - std**2).clamp(min=0).sqrt() * eps
    return Transition(mean, std)


def dpmpp_transition(
    x: Tensor,
    x0: Tensor,
    a_t: Tensor,
    a_prev: Tensor,
    eta: Tensor,
    *,
    older: Tensor | None = None,
    older_valid: Tensor | None = None,
    a_older: Tensor | None = None,
) -> Transition:
    """DPM-Solver++ in data prediction, first order or 2M midpoint (Lu et al. 2022, Algorithm 2).

    eta: [B] interpolates from the ODE (0) to SDE-DPM-Solver++ (1): the drift contracts x by exp(-eta h) more
    and noise of variance sigma_prev² (1 - exp(-2 eta h)) replaces it, h being the step in half log-SNR. x,
    x0: [B, …]. older: the x_0 prediction one step before, at cumulative alpha a_older, used (second order) in
    the rows where older_valid [B] is true. a_prev = 1 (sigma = 0) ends at x_0. The new history is x0.
    """
    alpha_prev, sigma_t, sigma_prev = a_prev.sqrt(), (1 - a_t).sqrt(), (1 - a_prev).sqrt()
    if float(sigma_prev) == 0.0:
        return Transition(x0, torch.zeros_like(per_row(eta, x)), x0)
    lam_t, lam_prev = _half_log_snr(a_t), _half_log_snr(a_prev)
    h = lam_prev - lam_t
    eta = per_row(eta, x)
    towards = -torch.expm1(-(1 + eta) * h)
    mean = (sigma_prev / sigma_t) * torch.exp(-eta * h) * x + alpha_prev * towards * x0
    if older is not None and older_valid is not None and a_older is not None:
        r = (lam_t - _half_log_snr(a_older)) / h
        second = 0.5 * alpha_prev * towards * (x0 - older) / r
        mean = mean + torch.where(per_row(older_valid, x).bool(), second, torch.zeros_like(second))
    std = sigma_prev * (-torch.expm1(-2 * eta * h)).sqrt()
    return Transition(mean, std, x0)


def _half_log_snr(a: Tensor) -> Tensor:
    return 0.5 * (a.log() - torch.log1p(-a))
