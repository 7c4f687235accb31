"""What a cell computes, counted before it runs from the plans that its method draws. No torch here.

The unit is a step of the chain of one sample with guidance, at the size that configs/gpus.yaml has speeds of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.files import Record
from bench.engine.batch import Batch, Perturbation
from bench.engine.method import Method
from bench.engine.plan import FIRST, REWARDED, Kind, Plan
from bench.experiment.settings import CellConfig, Training
from bench.run.gpu_speeds import passes, published, size
from bench.run.spent import Counters, Limit

DRAWN = 8  # batches whose plans are averaged, where a method draws them


def work(config: CellConfig) -> float | None:
    """What a cell computes; None if that is unknown.

    A training that is given a time counts with its evaluations alone. No graph counts as kept.
    """
    each, pictures = size(config.model.config), _pictures(config)
    if each is None or pictures is None:
        return None
    factors, training = published().factors, config.training
    looking = pictures * (config.model.config.steps + factors.scoring.value)
    if training is None:
        return each * looking
    counts = counted(method := load_method(config, training), training)
    if counts is None:
        return None
    scored = factors.scoring_gradient.value if method.needs_reward_grad else factors.scoring.value
    batch = counts.forward + counts.again + _pulled(config) * counts.backward + scored * training.train.batch
    return each * (looking * _evaluations(training) + batch * _batches(config, training, method, counts))


class Counts(NamedTuple):
    """Steps of one sample that a batch takes: what the estimator needs, and what is run again for it."""

    forward: float
    backward: float
    again: float


def counted(method: Method, training: Training) -> Counts | None:
    """Of an average batch. None for a method that trains nothing, or that does not say what it runs, and for
    a batch that does not suit it."""
    train = training.train
    try:
        plans = drawn_plans(method, training)
    except BenchError:  # said where the run is planned
        return None
    if not plans:
        return None
    each, pulled = train.batch / len(plans), method.passes * train.batch / len(plans)
    learned = pulled * sum(_count(plan, *FIRST, Kind.HO) for plan in plans)
    again = learned + pulled * sum(_count(plan, Kind.PASS) for plan in plans)
    reference = [_count(plan, Kind.AM, Kind.REF) for plan in plans]  # each has a backward but the earliest
    forward = each * sum(plan.steps for plan in plans) + pulled * sum(reference)
    backward = learned + pulled * sum(max(n - 1, 0) for n in reference)
    if train.kl:  # the reference's steps; a first-order one is pulled back, too
        forward += each * sum(eta > 0 for plan in plans for eta in plan.eta)
        carried = pulled * sum(_carried(plan) for plan in plans)
        backward, again = backward + carried, again + carried
    more = (train.batch * count for count in method.besides)
    return Counts(*(own + other for own, other in zip((forward, backward, again), more, strict=True)))


def drawn_plans(method: Method, training: Training, batches: Iterable[int] = range(DRAWN)) -> list[Plan]:
    """Of a few batches; none if the method does not say what it runs. Raises BenchError if a batch does not
    suit it."""
    train = training.train
    prompts = tuple(str(p) for p in range(train.prompts_per_step) for _ in range(train.samples_per_prompt))
    return [plan for step in batches for plan in _plans(method, Batch(prompts, step), training.seed)]


def load_method(config: CellConfig, training: Training) -> Method:
    """A cell's method, without torch. Raises BenchError."""
    cls = registry.load("method", training.method.name)
    return cls(cls.Config.model_validate(training.method.config), config.model.config.steps)


class _Asked(Exception):
    """A method has said which plans it wants run; none if it asks the engine for something else first."""

    def __init__(self, plans: Sequence[Plan] = ()) -> None:
        super().__init__()
        self.plans = plans


class _Ear:
    """Stands for the engine: hears what a method asks for, and runs nothing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def rollout(
        self, plans: Sequence[Plan], batch: Batch, perturbation: Perturbation | None = None, **_: Any
    ) -> None:
        (perturbation or Perturbation()).check_pairs(batch.prompts)
        raise _Asked(plans)

    def __getattr__(self, name: str) -> Any:
        raise _Asked


def _plans(method: Method, batch: Batch, seed: int) -> Sequence[Plan]:
    ear: Any = _Ear(seed)
    try:
        next(method.updates(ear, batch), None)
    except _Asked as asked:
        return asked.plans
    return ()


def _count(plan: Plan, *kinds: Kind) -> int:
    return sum(s.stop - s.start for s in plan.segments if s.kind in kinds)


def _carried(plan: Plan) -> int:
    """Steps with noise whose gradient goes on to the step before."""
    segments = [plan.segment_at(i) for i in range(plan.steps)]
    return sum(
        plan.eta[i] > 0
        and (
            s.start < i if s.kind is Kind.HO else s.kind.term is Kind.FO and segments[i - 1].kind in REWARDED
        )
        for i, s in enumerate(segments)
        if i > 0
    )


def _pulled(config: CellConfig) -> float:
    """Time of a step's backward over that of the step; checkpointing runs it once more."""
    return published().factors.backward.value + config.model.config.gradient_checkpointing


def _batches(config: CellConfig, training: Training, method: Method, counts: Counts) -> float:
    """How many a training takes; none of one that is given a time."""
    budget = training.train.budget
    if budget is None:
        return Limit(training.train).end / method.updates_per_batch
    if isinstance(budget, str):
        return 0.0
    return budget / (passes(config.model.config) * (counts.forward + 2 * counts.backward))


def _evaluations(training: Training) -> int:
    train = training.train
    return max(train.evaluations, (train.steps or 0) // train.eval_every if train.eval_every else 0)


def _pictures(config: CellConfig) -> int | None:
    """Of one evaluation; None where it is of all held-out prompts, which may not be here to be counted."""
    return None if config.eval.prompts is None else config.eval.prompts * config.eval.images_per_prompt


def pace(config: CellConfig, row: Record) -> float | None:
    """Work per second of the training so far, by the last line of its metrics; None if that does not say."""
    each, so_far = size(config.model.config), Counters.of(row)
    if each is None or config.training is None or not so_far.seconds or not so_far.nfe_forward:
        return None
    run = so_far.nfe_forward + so_far.nfe_again + _pulled(config) * so_far.nfe_backward
    factors = published().factors
    scored = factors.scoring_gradient.value if "fo" in row["terms"] else factors.scoring.value
    return each * (run / passes(config.model.config) + scored * so_far.samples) / so_far.seconds
