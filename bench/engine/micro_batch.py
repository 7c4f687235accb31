"""A micro-batch on its way through the stages of a gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.engine.chain import State
from bench.engine.plan import Kind

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Perturbation:
    """How ZO steps perturb the parameters.

    scale: s, standard deviation of the perturbation. shared: one z for all ZO steps of a sample, instead of
    one per step. antithetic: samples 2k and 2k+1 share prompt, x_T and noise, and have opposite z. mirrored:
    they share prompt, x_T and z, and have opposite noise at every step (with antithetic: opposite z, too).
    """

    scale: float = 1e-3
    shared: bool = False
    antithetic: bool = False
    mirrored: bool = False

    @property
    def paired(self) -> bool:
        """Samples 2k and 2k+1 are coupled, so that neither may serve as the other's baseline."""
        return self.antithetic or self.mirrored


KINDS = tuple(Kind)


@dataclass
class MicroBatch:
    """What one micro-batch's rollout leaves for the pull-backs. Row r is the batch's sample index[r]."""

    index: list[int]
    prompts: list[str]
    cond: Any
    eta: Tensor  # [rows, T]
    weight: Tensor  # [rows, T]
    kind: Tensor  # [rows, T], index into KINDS
    ends: Tensor  # [rows, T], the step is the last of its segment
    onward: Tensor  # [rows, T], the step's cotangent goes on to the step before it
    resets: Tensor  # [rows, T], a multistep solver forgets its memory before the step
    readout: int | None  # the last step is the one-step prediction of x_0
    frames: Tensor | None = None  # [rows, k], the frames that are decoded and rewarded; None: all
    states: list[State] = field(default_factory=list)  # T + 1
    std: list[Tensor] = field(default_factory=list)  # T, each broadcastable to x
    log_prob: Tensor = field(default_factory=lambda: torch.empty(0))  # [rows, T], 0 at deterministic steps
    rewards: Tensor = field(default_factory=lambda: torch.empty(0))  # [rows], higher is better
    reward_grad: Tensor | None = None  # dR/dx_0, [rows, …]
    graphs: Graphs | None = None  # held jointly instead of dR/dx_0 (`bench.engine.joint_graphs`)

    @property
    def steps(self) -> int:
        """T, or fewer with a readout."""
        return self.eta.shape[1]

    @property
    def pulls_from_reward(self) -> bool:
        """Whether the rollout left something to pull FO steps back from."""
        return self.reward_grad is not None or (self.graphs is not None and self.graphs.rewards is not None)

    def has(self, kind: Kind) -> bool:
        """Whether any row has a step of this kind."""
        return bool((self.kind == KINDS.index(kind)).any())

    def rows(self, i: int, *kinds: Kind) -> list[int]:
        """Rows whose step i is of one of the kinds."""
        wanted = torch.tensor([KINDS.index(k) for k in kinds], device=self.kind.device)
        return torch.isin(self.kind[:, i], wanted).nonzero()[:, 0].tolist()


@dataclass
class Graphs:
    """What one micro-batch's rollout keeps alive.

    x, history: by row, of its latest step with a graph; only what they depend on counts, not their values.
    blocks: (step, rows, their means) where HO blocks end. rewards: [rows], where a plan is FO. evaluations:
    of the network, with a graph.
    """

    x: dict[int, Tensor] = field(default_factory=dict)
    history: dict[int, Tensor] = field(default_factory=dict)
    blocks: list[tuple[int, list[int], Tensor]] = field(default_factory=list)
    rewards: Tensor | None = None
    evaluations: int = 0
