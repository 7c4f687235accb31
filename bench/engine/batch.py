"""What flows through the engine: a batch, its micro-batches on their way, and what is reported of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.engine.chain import State, Transition, at, sent
from bench.engine.control_variate import Sums
from bench.engine.plan import Kind

Gradients: TypeAlias = "Sequence[torch.Tensor | None]"  # one per trainable parameter; None: zero
# Of a step's mean, from its recomputed (mean, std).
Cotangent: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"


@dataclass(frozen=True)
class Batch:
    """All samples of one optimizer step, over all micro-batches and processes: one prompt per sample.

    Samples of the same prompt are adjacent. `step` (0, 1, …) and the sample's place in `prompts` key every
    random stream, so neither micro-batch size nor the number of processes changes a result.
    """

    prompts: tuple[str, ...]
    step: int


@dataclass(frozen=True)
class Perturbation:
    """How ZO steps perturb the parameters, and which random numbers samples have in common.

    scale: s, standard deviation of the perturbation. shared: one z for all ZO steps of a sample, instead of
    one per step. antithetic: samples 2k and 2k+1 share prompt, x_T and noise, and have opposite z. mirrored:
    they share prompt, x_T and z, and have opposite noise at every step (with antithetic: opposite z, too).
    common_noise: all samples of a prompt share x_T.
    """

    scale: float = 1e-3
    shared: bool = False
    antithetic: bool = False
    mirrored: bool = False
    common_noise: bool = False

    @property
    def paired(self) -> bool:
        """Samples 2k and 2k+1 are coupled, so that neither may serve as the other's baseline."""
        return self.antithetic or self.mirrored

    def check_pairs(self, prompts: Sequence[str]) -> None:
        """Raise BenchError unless the two samples of every pair have the same prompt, if there are pairs."""
        if self.paired and prompts[::2] != prompts[1::2]:
            raise BenchError("antithetic pairs share a prompt: make train.samples_per_prompt even")


@dataclass
class MicroBatch:
    """Some samples of a batch on their way through the stages. Row r is the batch's sample index[r].

    The first fields are laid out by `Roller.prepare`, the others are filled in by the stages that follow.
    """

    batch: Batch
    perturbation: Perturbation
    index: list[int]
    prompts: list[str]
    cond: Any
    eta: torch.Tensor  # [rows, T]
    weight: torch.Tensor  # [rows, T]
    # By row and step, on the host, so that asking which rows do what never waits for a device:
    kind: list[list[Kind]]
    perturbed: list[list[bool]]  # the step runs at perturbed parameters (ZO)
    ends: list[list[bool]]  # the step is the last of its segment
    onward: list[list[bool]]  # the step's cotangent goes on to the step before it
    noisy: list[list[bool]]  # the plan injects noise (eta > 0)
    resets: list[list[bool]]  # a multistep solver forgets its memory before the step
    readout: int | None  # the last step is the one-step prediction of x_0
    frames: torch.Tensor | None = None  # [rows, k], the frames that are decoded and rewarded; None: all
    # Filled in by the rollout:
    states: list[State] = field(default_factory=list)  # T + 1
    std: list[torch.Tensor] = field(default_factory=list)  # T, each broadcastable to x
    # [rows, T], 0 at deterministic steps
    log_prob: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    # With a KL term, by step with noise: means of the model that training starts from, [rows, …]
    reference: dict[int, torch.Tensor] = field(default_factory=dict)
    kl: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # [rows, T], then
    graphs: dict[tuple[int, tuple[int, ...]], Graph] = field(default_factory=dict)  # kept; by (step, rows)
    z: dict[int, tuple[list[int], torch.Tensor]] = field(default_factory=dict)  # kept; rows, theirs, by step
    # Filled in by the reward:
    rewards: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # [rows], higher is better
    reward_grad: torch.Tensor | None = None  # dR/dx_0, [rows, …]

    @property
    def steps(self) -> int:
        """T, or fewer with a readout."""
        return self.eta.shape[1]

    def has(self, *kinds: Kind) -> bool:
        """Whether any row has a step of one of these kinds."""
        return any(kind in kinds for row in self.kind for kind in row)

    def rows(self, i: int, *kinds: Kind) -> list[int]:
        """Rows whose step i is of one of the kinds."""
        return [r for r, row in enumerate(self.kind) if row[i] in kinds]

    def at(self, rows: Sequence[int]) -> slice | torch.Tensor:
        """What picks these rows of its tensors."""
        return at(rows, self.eta.device)

    def cond_of(self, rows: Sequence[int]) -> Any:
        """The condition of these rows."""
        if len(rows) == len(self.index):
            return self.cond
        return self.cond.select(sent(rows, self.eta.device))

    def first_order(self) -> MicroBatch:
        """The same trajectories with every step FO, of weight 1, and the cotangent going on to x_T."""
        return replace(
            self,
            kind=[[Kind.FO] * self.steps for _ in self.index],
            weight=torch.ones_like(self.weight),
            onward=[[True] * self.steps for _ in self.index],
            graphs={},
            z={},
        )

    def forget(self) -> None:
        """Let go of what was kept for one gradient."""
        self.graphs.clear()
        self.z.clear()


@dataclass(eq=False)
class Graph:
    """One step of some rows, with its graph. inputs: its x_i and, of a multistep solver, memory, where the
    gradient goes on to them. bytes: what the graph stores, where it was measured."""

    inputs: list[torch.Tensor]
    out: Transition
    bytes: int = 0


@dataclass
class Trajectory:
    """A batch that has been rolled out and scored.

    kinds, rewards (raw scores [B]), signed (the same, higher is better) and kl (of each step, [B, T], with a
    KL term) are of the whole batch, over all processes; micros are this process's. forward: the rollout's
    network evaluations of the whole batch. used: a gradient was taken, so the parameters may have changed.
    """

    batch: Batch
    kinds: frozenset[Kind]
    micros: list[MicroBatch]
    rewards: torch.Tensor
    signed: torch.Tensor
    forward: int
    kl: torch.Tensor | None = None
    used: bool = False

    @property
    def rows(self) -> int:
        """Samples of this process."""
        return sum(len(micro.index) for micro in self.micros)


@dataclass
class Evaluations:
    """Evaluations of the network by this process, counted per sample.

    forward and backward are what the estimator needs. again: forwards whose results were there before and
    that were run again to save memory, which is how this program does it and no cost of the method.
    """

    forward: int = 0
    backward: int = 0
    again: int = 0


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
    forward / backward / again: evaluations of the network for the whole batch, as in `Evaluations`; the
    rollout's are in the first report of a batch. half_order_norms: chain step → norm of one sample's HO
    gradient there (root mean square over the batch), unweighted, where measured. control_fits: what a control
    variate learns from, by chain step, over all processes. kl: of a sample, summed over its steps, mean over
    the batch; None without a KL term. extra: what a method wants logged.
    """

    rewards: torch.Tensor
    terms: dict[str, Term]
    forward: int
    backward: int
    again: int = 0
    half_order_norms: dict[int, float] = field(default_factory=dict)
    control_fits: dict[int, Sums] = field(default_factory=dict)
    kl: float | None = None
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


@dataclass(frozen=True)
class NoiseGradient:
    """rewards: [B], higher is better. gradient: dR/dx_T of each picture's own, [B, *latent_shape].

    forward / backward: network evaluations of all B pictures, as in `Report`.
    """

    rewards: torch.Tensor
    gradient: torch.Tensor
    forward: int
    backward: int
