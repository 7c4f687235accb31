"""What goes into one optimizer step and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """All samples of one optimizer step, over all micro-batches and processes: one prompt per sample.

    Samples of the same prompt are adjacent. `step` (0, 1, …) and the sample's place in `prompts` key every
    random stream, so neither micro-batch size nor the number of processes changes a result.
    """

    prompts: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Term:
    """One estimator term of a batch gradient: its norm and, with ≥ 2 micro-batches, the variance of its
    mean."""

    norm: float
    variance: float | None


@dataclass(frozen=True)
class Report:
    """What one gradient was made of. The gradient itself (of -E[R]) is in `.grad` of the chain's parameters.

    rewards: raw scores [B] of the whole batch. terms: by kind ("fo", "ho", "zo"), as weighted in the sum.
    forward / backward: network evaluations of the whole batch, counted per sample. half_order_norms: chain
    step → norm of one sample's HO gradient there (root mean square over the batch), unweighted, where
    measured. control_fits: what a control variate learns from, by chain step: sums over this process's rows
    (`bench.engine.control_variate.scale_of`). extra: what a method wants logged.
    """

    rewards: torch.Tensor
    terms: dict[str, Term]
    forward: int
    backward: int
    half_order_norms: dict[int, float] = field(default_factory=dict)
    control_fits: dict[int, tuple[float, ...]] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """Pictures that are about to be made by the deterministic chain.

    prompts: one each. noise: their x_T, [B, *latent_shape]. seed: of the evaluation. pictures: (place of the
    prompt in the list, number of the picture) of each, which with the seed key its random streams.
    """

    prompts: tuple[str, ...]
    noise: torch.Tensor
    seed: int
    pictures: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Improved:
    """Better noise for some pictures. noise: [B, *latent_shape]. rewards: raw scores [B, steps] on the way.

    forward / backward: network evaluations for all B pictures together, as in `Report`.
    """

    noise: torch.Tensor
    rewards: torch.Tensor
    forward: int
    backward: int
