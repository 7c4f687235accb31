"""Which h, and which settings, for a budget of memory: facts from simulation, a decision, and its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.units import gigabytes
from bench.experiment.choices import load_method
from bench.experiment.request import Options, build
from bench.experiment.resolve import Cell, resolve_all
from bench.experiment.settings import CellConfig
from bench.measure.cost import eq8
from bench.measure.cost.earlier import Variances
from bench.measure.cost.step import trained, with_method, with_model
from bench.measure.cost.usage import Usage

Simulate = Callable[[CellConfig], Usage]


@dataclass(frozen=True)
class JointCost:
    """Graphs held jointly, as Eq. 7 supposes. base: peak at h = 0. slope: B_h, bytes per HO step. fits: the
    largest h of which base + slope · h is in the budget, -1 if none is."""

    checkpointing: bool
    base: int
    slope: float
    fits: int


@dataclass(frozen=True)
class Candidate:
    """One way to run the staged engine. flops: of one optimizer step at the h that is asked for."""

    settings: Mapping[str, Any]
    peak: int
    host: int
    stage: str
    flops: float

    def words(self) -> str:
        """The settings as options of `bench run`."""
        return " ".join(
            f"--set {k}={str(v).lower() if v is not None else 'null'}" for k, v in self.settings.items()
        )


@dataclass(frozen=True)
class Facts:
    """What the decision rests on. slope_zo: B_z, bytes per ZO step. steps: T. longest: the largest h."""

    budget: int
    steps: int
    longest: int
    graphs: str
    slope_zo: float
    joint: tuple[JointCost, ...]
    variances: Variances | None

    @property
    def eq7(self) -> JointCost:
        """The setting that Eq. 8 is about: without checkpointing."""
        return self.joint[0]

    @property
    def allowed(self) -> int:
        """The largest h that memory allows in the chosen way of holding graphs."""
        if self.graphs == "staged":
            return self.longest
        return min(self.longest, self.joint[-1].fits)


@dataclass(frozen=True)
class Answers:
    """h by every rule. second: of Eq. 8, with V_h = 0 if there is no profile. measured: None without one."""

    first: int
    first_paper: int
    second: float
    printed: int
    corrected: int
    measured: int | None


def cell(method: str, model: str, batch: int, settings: Sequence[str]) -> CellConfig:
    """The cell that is planned. Raises BenchError if it has no h."""
    if "," in method or "," in model:
        raise BenchError("plan takes one method and one model at a time")
    sets = (f"train.batch_size={batch}", *settings)
    found: list[Cell] = resolve_all(
        build(Options(methods=method, model=model, settings=sets)).combinations, fetch=False
    )
    config = next(c.config for c in found if c.config.training is not None)
    if "h" not in trained(config).method.config:
        raise BenchError(f"{method} has no half-order block, so there is no h to plan: try --method rlr")
    return config


def longest(config: CellConfig) -> int:
    """The largest h that the method takes."""
    for h in range(config.model.config.steps, 0, -1):
        try:
            load_method(trained(_at(config, h)).method, config.model.config.steps)
            return h
        except BenchError:
            continue
    return 0


def changed(config: CellConfig, h: int | None = None, **settings: Any) -> CellConfig:
    """The cell with another h, model settings (`gradient_checkpointing`, `offload`) or train settings."""
    model = {k: v for k, v in settings.items() if k in type(config.model.config).model_fields}
    train = {k: v for k, v in settings.items() if k not in model}
    found = with_model(config if h is None else _at(config, h), **model)
    training = trained(found)
    training = training.model_copy(update={"train": training.train.model_copy(update=train)})
    return found.model_copy(update={"training": training})


def _at(config: CellConfig, h: int) -> CellConfig:
    method = trained(config).method
    return with_method(config, method.name, {**method.config, "h": h})


def facts(config: CellConfig, budget: int, simulate: Simulate, known: Variances | None) -> Facts:
    """Simulate what Eq. 7 needs."""
    top, model = longest(config), config.model.config
    ways = (False, True) if model.gradient_checkpointing else (False,)
    joint = tuple(_joint(config, budget, simulate, top, checkpointing) for checkpointing in ways)
    graphs = trained(config).train.least_graphs
    return Facts(budget, model.steps, top, graphs, _zo_slope(config, simulate), joint, known)


def _joint(config: CellConfig, budget: int, simulate: Simulate, top: int, checkpointing: bool) -> JointCost:
    def peak(h: int) -> int:
        way = {"graphs": "joint", "gradient_checkpointing": checkpointing, "offload": False}
        return simulate(changed(config, h, **way)).device

    far = min(2, top)
    base = peak(0)
    slope = (peak(far) - base) / far if far else 0.0
    if base > budget:
        fits = -1
    else:
        fits = math.floor((budget - base) / slope) if slope > 0 else top
    return JointCost(checkpointing, base, slope, min(fits, top))


def _zo_slope(config: CellConfig, simulate: Simulate) -> float:
    """B_z: what another ZO step adds to the peak of a chain of nothing else."""
    settings = registry.load("method", "zo").Config().model_dump(mode="json")
    zo, steps = with_method(config, "zo", settings), config.model.config.steps
    half = max(1, steps // 2)
    if half == steps:
        return 0.0
    peaks = [simulate(with_model(zo, steps=length)).device for length in (half, steps)]
    return (peaks[1] - peaks[0]) / (steps - half)


def answers(known: Facts) -> Answers:
    """h by every rule, from the simulated facts."""
    variances, steps = known.variances, known.steps
    v_h, v_z = 0.0, 1.0
    if variances and variances.v_h is not None and variances.v_z:
        v_h, v_z = variances.v_h, variances.v_z
    first = eq8.first_term(known.budget, known.eq7.slope, known.slope_zo, steps) if known.eq7.slope > 0 else 0
    second = eq8.second_term(steps, v_h, v_z)
    paper = eq8.first_term(known.budget, eq8.PAPER_B_H, eq8.PAPER_B_Z, steps)
    least = min(eq8.minimiser(steps, v_h, v_z), known.longest)
    measured = None
    if variances is not None:
        fitting = [row for row in variances.rows if row.h <= known.allowed]
        measured = min(fitting, key=lambda row: row.cost).h if fitting else None
    return Answers(first, paper, second, int(min(first, second)), min(least, known.allowed), measured)


def decide(known: Facts, found: Answers) -> int:
    """Measured where it was measured, else the corrected surrogate. Raises BenchError if no h fits."""
    if known.allowed < 0:
        need = known.joint[-1].base
        raise BenchError(
            f"--budget-memory: with train.graphs=joint even h = 0 takes {gigabytes(need)} GB; leave it "
            "staged, or "
            "take a smaller batch"
        )
    return found.corrected if found.measured is None else found.measured


def choices(config: CellConfig, h: int, simulate: Simulate) -> list[Candidate]:
    """Ways to run the staged engine, largest memory first."""
    batch = trained(config).train.batch
    near, found = min(1, h), list[Candidate]()
    for checkpointing in (False, True):
        ways: list[dict[str, Any]] = [
            {"train.micro_batch": batch, "train.reward_chunk": None},
            {"train.micro_batch": batch, "train.reward_chunk": 1},
            {"train.micro_batch": 1, "train.reward_chunk": None},
        ]
        ways = ways if batch > 1 else ways[:1]
        if not checkpointing:
            ways.append({**ways[-2 if batch > 1 else -1], "model.offload": True})
        per_step = None
        for way in ways:
            settings = {"model.gradient_checkpointing": checkpointing, **way}
            plain = {key.split(".")[1]: value for key, value in settings.items()} | {"graphs": "staged"}
            plain.setdefault("offload", False)
            here = simulate(changed(config, near, **plain))
            if per_step is None and h > near:
                more = simulate(changed(config, near + 1, **plain))
                per_step = more.flops - here.flops
            flops = here.flops + (h - near) * (per_step or 0)
            found.append(Candidate(settings, here.device, here.host, here.peak_stage, flops))
    return found


def chosen(found: Sequence[Candidate], budget: int) -> Candidate | None:
    """The one of least work that fits; of equals, without transfers and with the fewest pieces."""
    fitting = [choice for choice in found if choice.peak <= budget]
    if not fitting:
        return None
    least = min(choice.flops for choice in fitting)
    return min(fitting, key=lambda c: (round(100 * c.flops / least), c.host > 0, -c.peak))
