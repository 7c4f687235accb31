"""KL to the model that training starts from, as part of the objective: J = E[R] - β E[Σ_i KL_i].

At a step that injects noise, two chains that stand at the same x_i go on to Gaussians of the same std, so

    KL_i = |μ_θ(x_i) - μ_ref(x_i)|² / (2 std²)

and the sum over steps is the chains' KL. KL_i moves with θ in two ways, like the reward:

- at fixed x_i: the step's mean gets the cotangent -β (μ_θ - μ_ref) / std² beside what it has. Where that is
  carried on to x_i, the derivative of μ_ref is in it, too.
- through x_i. What is carried from the image end has this part for FO steps and inside HO blocks. The noise
  at a block's end is weighed by A - β Σ_{k>i} KL_k, a perturbation of step i by A - β Σ_{k≥i} KL_k. These
  sums, the KL to go, are taken less their mean over the batch's other samples.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.engine.advantages import advantages
from bench.engine.batch import Cotangent, MicroBatch, Trajectory
from bench.engine.chain import per_row
from bench.engine.plan import Kind, Plan

if TYPE_CHECKING:
    from bench.engine.world import World

WAY_OUT = (
    "set the method's eta to more than 0 (for flow matching with model.solver=flow_sde or flow_cps), or "
    "train.kl=0"
)


def divergence(mean: torch.Tensor, reference: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """KL of Gaussians with these means and one std > 0, summed over each row's dimensions: [B, …] → [B]."""
    return ((mean - reference) ** 2 / (2 * std**2)).flatten(1).sum(1)


def check_noise(injected: Iterable[bool], who: str = "", way_out: str = WAY_OUT) -> None:
    """Raise BenchError if nothing injects noise. injected: of steps or plans, whether they do; who, way_out:
    how the message begins and ends."""
    if not any(injected):
        raise BenchError(
            f"{who}train.kl is the KL between chains with noise, and no step of this one injects any: "
            f"{way_out}"
        )


def check_plans(
    plans: Sequence[Plan], without_noise: Container[int] = (), who: str = "", way_out: str = WAY_OUT
) -> None:
    """Raise BenchError if the objective of a batch's plans cannot have a KL term.

    without_noise: steps at which the solver injects none. who, way_out: as for `check_noise`.
    """
    if any(p.has(Kind.AM, Kind.REF) for p in plans):
        raise BenchError(
            f"{who}adjoint matching has the KL in its own objective, λ E[R] - KL, and its steps (AM, REF) "
            "take no other: --set train.kl=0, and adjoint_matching.reward_scale for its weight"
        )
    check_noise((e > 0 and i not in without_noise for p in plans for i, e in enumerate(p.eta)), who, way_out)


def gather(trajectory: Trajectory, world: World, each: int) -> None:
    """Note the KL of the whole batch, and count what it took; each: evaluations of the network for a step.

    Raises BenchError if the solver injects no noise.
    """
    micros = trajectory.micros
    steps = sum(row[i] for micro in micros for i in micro.reference for row in micro.noisy)
    together = sum(world.gather_each(steps))
    check_noise([together > 0])
    trajectory.forward += together * each
    trajectory.kl = world.gather(torch.cat([micro.kl for micro in micros]))


def to_go(trajectory: Trajectory) -> torch.Tensor:
    """KL from each step on less its mean over the batch's other samples, [B, T + 1]; the last column is 0.

    Of antithetic pairs neither enters the other's mean; a sample or a pair alone has none subtracted.
    """
    assert trajectory.kl is not None
    whole = trajectory.kl.new_zeros(len(trajectory.kl), trajectory.kl.shape[1] + 1)
    whole[:, :-1] = trajectory.kl.flip(1).cumsum(1).flip(1)
    prompts, paired = trajectory.batch.prompts, trajectory.micros[0].perturbation.paired
    if len(whole) <= 1 + paired:
        return whole
    return torch.stack([advantages(c, prompts, "loo", antithetic=paired) for c in whole.T], dim=1)


class KlCotangent:
    """What KL_i adds to the cotangent of step i's mean, for rows of which some inject noise there."""

    def __init__(self, micro: MicroBatch, i: int, rows: list[int], factor: torch.Tensor) -> None:
        """factor: [rows], β times the step's weight."""
        self.micro, self.i, self.rows, self.factor = micro, i, rows, factor
        self.noisy = [k for k, r in enumerate(rows) if micro.noisy[r][i]]
        self.value: torch.Tensor | None = None  # [rows, …], once the step has run

    def beside(self, other: torch.Tensor | Cotangent) -> Cotangent:
        """The sum of another cotangent of the mean, [rows, …] or a function that gives it, and this."""

        def both(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
            self.value = self._of(mean, std)
            return (other if isinstance(other, torch.Tensor) else other(mean, std)) + self.value

        return both

    def _of(self, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        found, these = torch.zeros_like(mean), self.micro.at(self.noisy)
        away = (mean - self.micro.reference[self.i][self.micro.at(self.rows)])[these]
        found[these] = -per_row(self.factor, mean)[these] * away / std[these] ** 2
        return found
