"""A plan says which estimator handles which step of a reverse chain (RLR paper, Eq. 5).

Steps count in sampling order: i = 0 is the noisiest, i = T-1 produces x_0. The paper counts down: its step t
is i = T - t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench.base.errors import BenchError


class Kind(StrEnum):
    """How one step's contribution to the gradient is estimated."""

    FO = "FO"  # first order: backpropagation, connected to the reward
    HO = "HO"  # half order: backpropagation inside a block, likelihood ratio on the noise at its end
    ZO = "ZO"  # zeroth order: parameters perturbed at the step, perturbation weighted by the reward
    SKIP = "SKIP"  # contribution dropped, x cut
    PASS = "PASS"  # contribution dropped, the solver's linear x-path stays live
    DI = "DI"  # first order with the network's input detached: x goes by the solver's linear path alone
    AM = "AM"  # adjoint matching: a regression on the adjoint, x goes through the reference model
    REF = "REF"  # contribution dropped, x goes through the reference model
    MATCH = "MATCH"  # regression at noised final samples (`bench.engine.forward_process`); in no plan

    @property
    def term(self) -> Kind:
        """The term of the gradient that such steps add to: those of DI and AM are first order."""
        return Kind.FO if self in (Kind.DI, Kind.AM) else self


FIRST = tuple(kind for kind in Kind if kind.term is Kind.FO)
REWARDED = (*FIRST, Kind.PASS, Kind.REF)  # what dR/dx_0 is pulled back through
UNIT_WEIGHTS: Mapping[Kind, float] = {Kind.FO: 1.0, Kind.HO: 1.0, Kind.ZO: 1.0}  # of the gradient's terms


@dataclass(frozen=True)
class Segment:
    """Steps start … stop-1 share a kind; an HO segment is one block. `weight` multiplies its contribution."""

    kind: Kind
    start: int
    stop: int
    weight: float = 1.0


@dataclass(frozen=True)
class Plan:
    """One sample's estimator: segments that tile its steps in order, and the noise scale eta at each step.

    readout: None for R(x_0) after all T steps; m for R(x̂_0(x_m)) (ReFL): then steps 0 … m-1 run, and step m
    is the one-step prediction of x_0 instead of a transition, so there are m + 1 steps.
    frames: None for the reward of the whole video; k for that of k of its frames, drawn for each sample.
    """

    segments: tuple[Segment, ...]
    eta: tuple[float, ...]
    readout: int | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("a plan needs at least one segment")
        if any(s.kind is Kind.MATCH for s in self.segments):
            raise ValueError("no step of a chain is a regression: Engine.regression takes its samples")
        if any(s.weight == 0 for s in self.segments):
            raise ValueError("a segment of weight 0 estimates nothing: make it SKIP")
        position, backpropagated = 0, True
        for s in self.segments:
            if s.start != position or s.stop <= s.start:
                raise ValueError(
                    f"segments must tile the chain in order: {s} does not start at step {position}"
                )
            position = s.stop
        if position != len(self.eta):
            raise ValueError(f"segments cover {position} steps, eta has {len(self.eta)}")
        if self.frames is not None and self.frames < 1:
            raise ValueError("a reward needs at least one frame")
        if any(e < 0 for e in self.eta):
            raise ValueError("eta must not be negative")
        if self.readout is not None and (self.readout != len(self.eta) - 1 or self.eta[-1] != 0):
            raise ValueError("a readout is the plan's last step, and a prediction has no noise")
        for s in reversed(self.segments):
            if s.kind in REWARDED:
                if not backpropagated:
                    raise ValueError(
                        f"{s} is cut off from the reward: {', '.join(REWARDED)} must touch the end"
                    )
            else:
                backpropagated = False
            if s.kind is Kind.HO and not self.eta[s.stop - 1] > 0:
                raise ValueError(f"{s} needs eta > 0 at its last step {s.stop - 1}")
            if s.kind is Kind.AM and not all(e > 0 for e in self.eta[s.start : s.stop]):
                raise ValueError(f"{s} needs eta > 0 at all of its steps")

    @property
    def steps(self) -> int:
        """T, or with a readout m + 1."""
        return len(self.eta)

    def segment_at(self, i: int) -> Segment:
        """The segment that step i belongs to."""
        return next(s for s in self.segments if s.start <= i < s.stop)

    def has(self, *kinds: Kind) -> bool:
        """Whether any segment is of one of these kinds."""
        return any(s.kind in kinds for s in self.segments)

    def needs_noise(self) -> set[int]:
        """Steps whose own noise the gradient is made of: the last of each HO block, and all AM steps."""
        ends = {s.stop - 1 for s in self.segments if s.kind is Kind.HO}
        return ends.union(*(range(s.start, s.stop) for s in self.segments if s.kind is Kind.AM))

    def resets(self) -> tuple[bool, ...]:
        """Steps at which a multistep solver forgets its history: the first, and each after a stochastic one.

        The likelihood ratio at a stochastic step carries only what flows through x; a history that also
        depends on the parameters would carry a part that no term counts (a bias).
        """
        return (True, *(e > 0 for e in self.eta[:-1]))


def tiled(kinds: Sequence[Kind], eta: Sequence[float]) -> Plan:
    """One segment per run of equal kinds, except that every HO step is a block of its own (h = 1)."""
    segments: list[Segment] = []
    for i, kind in enumerate(kinds):
        if segments and segments[-1].kind is kind and kind is not Kind.HO:
            segments[-1] = Segment(kind, segments[-1].start, i + 1)
        else:
            segments.append(Segment(kind, i, i + 1))
    return Plan(tuple(segments), tuple(eta))


def no_noise(i: int, steps: int, who: str = "") -> BenchError:
    """That step i injects no noise where a plan needs it, and what to do; who: how the message begins."""
    until = f", or for GRPO grpo.until={math.floor(1000 * i / steps) / 1000:g}" if i else ""
    return BenchError(
        f"{who}step {i} of {steps} injects no noise whatever eta (sigma = 0), so no likelihood ratio exists "
        "there, and nothing to match. This is the last step of DPM-Solver++ and flow_cps, of DDIM when the "
        "scheduler has set_alpha_to_one=True, and any step of euler: use model.solver=ddim with "
        "set_alpha_to_one=False in the model's scheduler_config.json, for flow matching "
        f"model.solver=flow_sde, a method that is first order there{until}"
    )


def common_steps(plans: Sequence[Plan], chain_steps: int) -> int:
    """The steps of each of a batch's plans. Raises ValueError if they differ, or do not fit to the chain."""
    steps, readout = plans[0].steps, plans[0].readout
    if any((p.steps, p.readout, p.frames) != (steps, readout, plans[0].frames) for p in plans):
        raise ValueError("all plans of a batch have the same steps, the same readout and as many frames")
    if readout is None and steps != chain_steps:
        raise ValueError(f"the plans have {steps} steps, the chain has {chain_steps}")
    return steps


def layout(plan: Plan) -> dict[str, list[Any]]:
    """The plan's properties by step, each a list over its T steps, under the names of `MicroBatch`."""
    segments = [plan.segment_at(i) for i in range(plan.steps)]
    return {
        "eta": [float(e) for e in plan.eta],
        "weight": [float(s.weight) for s in segments],
        "kind": [s.kind for s in segments],
        "noisy": [e > 0 for e in plan.eta],
        "perturbed": [s.kind is Kind.ZO for s in segments],
        "ends": [s.stop == i + 1 for i, s in enumerate(segments)],
        "onward": [
            s.start < i if s.kind is Kind.HO else i > 0 and {s.kind, segments[i - 1].kind} <= {*REWARDED}
            for i, s in enumerate(segments)
        ],
        "resets": list(plan.resets()),
    }
