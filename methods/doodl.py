"""DOODL: optimise the starting noise x_T of every picture by the reward's gradient through the whole chain.

Source: Wallace et al. 2023, "End-to-End Diffusion Latent Optimization Improves Classifier Guidance"
(arXiv:2303.13703), code salesforce/DOODL; a baseline of the RLR paper's Table 3. Nothing is trained: held-out
pictures start from the optimised x_T instead of the draw that the other methods share. With g = dR/dx_T,

    v ← momentum · v + step(g),    x_T ← (x_T + v + perturbation · ε) · norm / ‖x_T + v + perturbation · ε‖

How it differs from the authors' code:

- The gradient. Theirs goes through EDICT, a chain of two coupled latents that can be run backwards, so that
  activations need not be stored; it samples other pictures than DDIM, with twice the network evaluations.
  Here it is the exact gradient of the deployed deterministic sampler (any solver, eta = 0): every step is run
  again from its stored latent, so that one network graph is in memory, too.
- The step. Theirs is g, scaled by the loss's weight and clipped to ±1e-3 (`step: clipped`). By default g is
  brought to a root mean square of lr, since rewards differ in scale; lr = 1e-3 is the longest of their steps.
- Their CLIP and aesthetic losses are of 16 random crops of the picture. Here it is the reward itself.
- `norm: draw`, what the code does, keeps the norm of the picture's own draw; `expected` is sqrt(d).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.engine.batch import Improved, Start
from bench.engine.chain import per_row
from bench.engine.method import InferenceMethod
from bench.engine.random_streams import normal

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class DoodlConfig(Strict):
    """Settings of DOODL."""

    steps: int = Field(default=50, ge=1, description="optimisation steps of every picture's x_T")
    lr: float = Field(
        default=1e-3,
        gt=0,
        description="normalised: root mean square of a step over x_T's elements, whose own is about 1; "
        "clipped: factor of the reward's gradient",
    )
    step: Literal["normalised", "clipped"] = Field(
        default="normalised", description="normalised: of length lr; clipped: the authors', up to clip"
    )
    clip: float = Field(default=1e-3, gt=0, description="largest element of a clipped step")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of earlier steps that goes on")
    perturbation: float = Field(
        default=1e-4, ge=0, description="standard deviation of the noise added after every step"
    )
    norm: Literal["draw", "expected", "free"] = Field(
        default="draw",
        description="what x_T is brought to after every step: draw: its norm as it was drawn; expected: "
        "sqrt(d), d its elements; free: not at all",
    )


@final
class Doodl(InferenceMethod):
    """Gradient ascent on x_T, picture by picture."""

    name: ClassVar[str] = "doodl"
    Config: ClassVar[type[Strict]] = DoodlConfig
    needs_reward_grad = True
    biased = False

    def __init__(self, config: DoodlConfig, steps: int) -> None:
        """Any chain will do."""
        super().__init__(config, steps)
        self.config: DoodlConfig = config

    def improve(self, engine: Engine, start: Start) -> Improved:
        """x_T after all steps. Raises BenchError for a gradient that is not finite."""
        config, x = self.config, start.noise.float()
        norm, velocity = self._norm(x), torch.zeros_like(x)
        rewards, forward, backward = list[torch.Tensor](), 0, 0
        for m in range(config.steps):
            found = engine.noise_gradient(start.prompts, x)
            velocity = config.momentum * velocity + self._step(found.gradient.float(), start, m)
            keys = [("doodl", engine.seed, start.seed, p, k, m) for p, k in start.pictures]
            x = x + velocity + config.perturbation * normal(keys, x.shape[1:], x.device)
            if norm is not None:
                x = x * per_row(norm / _length(x), x)
            rewards.append(found.rewards if engine.reward.higher_is_better else -found.rewards)
            forward, backward = forward + found.forward, backward + found.backward
        return Improved(x.to(start.noise.dtype), torch.stack(rewards, dim=1), forward, backward)

    def _norm(self, x: torch.Tensor) -> torch.Tensor | None:
        """What every row of x_T is brought to, [B]; None: nothing."""
        if self.config.norm == "free":
            return None
        return _length(x) if self.config.norm == "draw" else torch.full_like(_length(x), _root(x))

    def _step(self, gradient: torch.Tensor, start: Start, m: int) -> torch.Tensor:
        """[B, *latent_shape]; zero where the gradient is."""
        bad = (~torch.isfinite(gradient)).flatten(1).any(1).nonzero()[:, 0].tolist()
        if bad:
            raise BenchError(
                f"doodl: dR/dx_T of {start.prompts[bad[0]]!r} is not finite at step {m + 1} of "
                f"{self.config.steps}. If the model or the reward runs in half precision, try dtype=float32"
            )
        if self.config.step == "clipped":
            return (self.config.lr * gradient).clamp(-self.config.clip, self.config.clip)
        smallest = torch.finfo(gradient.dtype).tiny
        return gradient * per_row(
            self.config.lr * _root(gradient) / _length(gradient).clamp_min(smallest), gradient
        )


def _length(x: torch.Tensor) -> torch.Tensor:
    """Norm of every row, [B]."""
    return x.flatten(1).norm(dim=1)


def _root(x: torch.Tensor) -> float:
    """sqrt(d), the expected norm of a row of standard normal numbers."""
    return math.sqrt(x[0].numel())
