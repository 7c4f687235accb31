"""A request for gradient profiles → what has to be measured, and how long each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import Tree
from bench.data import digests
from bench.experiment.choices import load_method
from bench.experiment.combinations import Combination
from bench.experiment.files import ModelFile
from bench.experiment.model_files import model_file
from bench.experiment.overrides import Override
from bench.experiment.request import Experiment
from bench.experiment.resolve import Cell, only_trained, resolve
from bench.experiment.settings import TrainConfig
from bench.measure.gradients.store import FOLDER, INIT, ProbeConfig, ProbeDir, probe_config, probe_id
from bench.measure.gradients.work import ProbeWork
from bench.models.lora_place import PEFT_SETTINGS, weights_file
from bench.run import preflight
from bench.run.load import find_lora

REFERENCE = "full_bp"


@dataclass(frozen=True)
class Limits:
    """When to stop: seconds for everything together, draws of each, half-width of each bias's interval."""

    budget: float | None
    draws: int | None
    precision: float | None


@dataclass(frozen=True)
class PlannedProbes:
    """A checked request. probes: in order; the exact gradient of the deployed sampler comes first."""

    out: Path
    probes: list[tuple[ProbeConfig, ProbeDir]]
    limits: Limits
    jobs: int | None


def plan(experiment: Experiment, places: Sequence[str], limits: Limits, jobs: int | None) -> PlannedProbes:
    """Check everything that can be checked before anything runs. Raises BenchError.

    places: θ, each `init` or the directory of a cell or a LoRA. The deployed sampler's exact gradient is
    measured along with whatever was asked for, because all biases refer to it.
    """
    asked = _only(experiment.combinations)
    origin, file = model_file(asked.model)
    _check_differentiable(asked.reward)
    methods = asked.methods
    if methods is not None and REFERENCE not in methods:
        methods = (REFERENCE, *methods)
    layers = (Override(origin, {"train": _batch(file) | file.gradients}), *asked.overrides)
    part = replace(asked, methods=methods, overrides=layers)
    named = methods is not None
    cells = estimating(only_trained(resolve(part), named), named)
    reference = next(cell for cell in cells if cell.config.label == REFERENCE)
    wanted = [cell for cell in cells if _asked(cell, asked)]
    cells = [_deterministic(reference), *wanted]
    probes: dict[str, ProbeConfig] = {}
    for place in places:
        for cell in cells:
            config = _probe(cell, place)
            known = probes.setdefault(probe_id(config), config)
            if known.method.name != config.method.name and config.method.name not in known.aliases:
                aliases = (*known.aliases, config.method.name)
                probes[probe_id(config)] = known.model_copy(update={"aliases": aliases})
    _check_scopes(list(probes.values()))
    preflight.check(cells)
    folder = experiment.out / FOLDER
    found = [(config, ProbeDir(folder / name)) for name, config in probes.items()]
    return PlannedProbes(experiment.out, found, limits, jobs)


def _batch(file: ModelFile) -> Tree:
    """The model's own batch, whatever the methods' files say: all are compared at the same one."""
    names = ("prompts_per_step", "samples_per_prompt", "micro_batch")
    return {name: file.train.get(name, TrainConfig.model_fields[name].default) for name in names}


def _check_scopes(probes: Sequence[ProbeConfig]) -> None:
    """Every method needs a reference: the exact gradient at the same θ with the same batches."""
    references = [probe for probe in probes if probe.deployed]
    for probe in probes:
        if not any(probe.same_target(reference) for reference in references):
            raise BenchError(
                f"{probe.method.name}: its batch ({probe.prompts_per_step} × {probe.samples_per_prompt}, "
                f"micro_batch {probe.micro_batch}) is not the reference's. Set train.… for all methods, not "
                f"{probe.method.name}.train.…"
            )


def _check_differentiable(reward: str) -> None:
    if not registry.load("reward", reward).differentiable:
        raise BenchError(
            f"reward '{reward}' has no gradient. A profile compares every method with the exact gradient, "
            "which goes back through the reward and the whole chain: choose a differentiable reward."
        )


def _only(parts: Sequence[Combination]) -> Combination:
    if len(parts) > 1:
        raise BenchError("a profile is of one model with one reward and one prompt set: name one of each")
    return parts[0]


def estimating(cells: Sequence[Cell], named: bool) -> list[Cell]:
    """Those whose gradient is the reward's. Raises BenchError if one is not and the methods were named."""
    null = [c.config.label for c in cells if not registry.load("method", c.config.label).estimates]
    if null and named:
        raise BenchError(f"method '{null[0]}' estimates nothing: it has no gradient of a reward to look at")
    return [cell for cell in cells if cell.config.label not in null]


def _asked(cell: Cell, part: Combination) -> bool:
    return part.methods is None or cell.config.label in part.methods


def _deterministic(cell: Cell) -> Cell:
    """Full backpropagation through the sampler as it is deployed: without noise."""
    training = cell.config.training
    assert training is not None  # not the base model
    method = training.method.model_copy(update={"config": {**training.method.config, "eta": 0.0}})
    train = training.train.model_copy(update={"kl": 0.0})  # there is none without noise
    plain = training.model_copy(update={"method": method, "train": train})
    config = cell.config.model_copy(update={"training": plain})
    return Cell(cell.id, config)


def _probe(cell: Cell, place: str) -> ProbeConfig:
    training = cell.config.training
    assert training is not None  # filtered
    biased = load_method(training.method, cell.config.model.config.steps).biased
    if place == INIT:
        return probe_config(cell, training, biased, INIT, {})
    lora = find_lora(Path(place), "--at")
    file = weights_file(lora)
    read = digests.digest(lora) if lora.is_dir() else digests.digest(file.parent, (file.name, PEFT_SETTINGS))
    return probe_config(cell, training, biased, str(lora.resolve()), {"lora": read})


def unfinished(planned: PlannedProbes, force: bool) -> list[ProbeWork]:
    """The profiles that have to draw."""
    found = [
        ProbeWork(
            directory,
            config,
            config.label if config.at == INIT else f"{config.label} (trained)",
            planned.limits.draws,
        )
        for config, directory in planned.probes
    ]
    return [probe for probe in found if force or not probe.finished()]
