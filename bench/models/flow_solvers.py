"""Reverse transitions of flow matching as pure functions: mean and standard deviation of x_prev given x.

Symbols as in the papers: x_sigma = (1 - sigma) x_0 + sigma eps with sigma from 1 to 0, and v the velocity
that the network predicts, eps - x_0. "prev" is the less noisy end of the step. eta scales the injected noise:
0 is Euler's method on the ODE dx = v dsigma for every function here; what other values mean, each says.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.engine.chain import Transition, per_row

PURE_NOISE = 1 - 1e-5  # a sigma from here on is 1: float32 rounds shifted levels, UniPC's begin at 1 - 1e-6


def split_velocity(v: Tensor, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x_0 prediction, eps prediction) from the velocity: x - sigma v and x + (1 - sigma) v.

    v, x: [B, …]; sigma: scalar tensor.
    """
    return x - sigma * v, x + (1 - sigma) * v


def euler_transition(x: Tensor, v: Tensor, sigma: Tensor, sigma_prev: Tensor, eta: Tensor) -> Transition:
    """Euler's method on the ODE, which takes no noise: std is 0 whatever eta.

    x, v: [B, …]. sigma, sigma_prev: scalar tensors. eta: [B], for its shape alone.
    """
    return Transition(x + (sigma_prev - sigma) * v, torch.zeros_like(per_row(eta, x)))


def flow_sde_transition(x: Tensor, v: Tensor, sigma: Tensor, sigma_prev: Tensor, eta: Tensor) -> Transition:
    """Euler and Maruyama's method on the SDE of Flow-GRPO (Liu et al. 2025, arXiv:2505.05470, eq. 9).

    The SDE has the ODE's marginals and the diffusion coefficient sigma_t = eta sqrt(sigma / (1 - sigma)).
    eta: [B], the paper's a (0.7 there), any number. Other shapes as above; std is [B, 1, …], and more than 0
    at the last step, too. At sigma = 1 the coefficient is infinite: there 1 - sigma_prev takes the place of
    1 - sigma, as in the authors' code, so that the std of a first step is eta.
    """
    dt = sigma_prev - sigma
    left = 1 - (sigma_prev if float(sigma) >= PURE_NOISE else sigma)
    variance = per_row(eta, x) ** 2 * (sigma / left)  # sigma_t²
    correction = variance / (2 * sigma) * dt
    mean = x * (1 + correction) + v * (dt + (1 - sigma) * correction)
    return Transition(mean, (-dt * variance).sqrt())


def flow_cps_transition(x: Tensor, v: Tensor, sigma: Tensor, sigma_prev: Tensor, eta: Tensor) -> Transition:
    """Coefficients-preserving sampling (Wang & Yu 2025, arXiv:2509.05952): DDIM's idea for flow matching.

    Of the noise that x_prev is to have, the share sin(eta pi / 2) is drawn anew and the share cos(eta pi / 2)
    is the predicted one, so that signal and noise keep their coefficients. eta: [B], 0 … 1; above 1 it counts
    as 1, which predicts none of the noise. Shapes as above; std is [B, 1, …], and 0 where sigma_prev is.
    """
    x0, eps = split_velocity(v, x, sigma)
    angle = per_row(eta.clamp(max=1), x) * (math.pi / 2)
    return Transition((1 - sigma_prev) * x0 + sigma_prev * angle.cos() * eps, sigma_prev * angle.sin())
