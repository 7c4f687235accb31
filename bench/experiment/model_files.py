"""configs/models/*.yaml: a model's settings, and what suits it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, load_config, readable, shipped
from bench.experiment.files import ModelFile
from bench.experiment.overrides import Override, over, sampler_as_model
from bench.experiment.settings import EvalConfig, TrainConfig
from bench.models.config import ModelConfig

RANDOM = "random"


def model_file(name: str) -> tuple[str, ModelFile]:
    """A model's settings and where they stand: shipped, or a file; `path:` and `hub:` take the defaults."""
    kind, colon, rest = name.partition(":")
    if colon and kind in ("path", "hub") and rest:
        return name, ModelFile(model={"source": name})
    if name.endswith((".yaml", ".yml")):
        return name, load_config(Path(name), ModelFile)
    known = shipped("models")
    if name not in known:
        names = [*known, "path:DIRECTORY", "hub:ORG/NAME", "FILE.yaml"]
        raise BenchError(f"unknown model '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}")
    return readable(known[name]), load_config(known[name], ModelFile)


def alike(name: str) -> tuple[str, ...]:
    """The models whose blocks in configs/methods apply to a model, lowest first.

    They are the one that its file says it is like, if any, that one's in the same way, and itself.

    Raises BenchError if a file says so of no shipped model, or in a circle.
    """
    found, known = [name], shipped("models")
    while found[0] in known or found[0].endswith((".yaml", ".yml")):
        origin, file = model_file(found[0])
        if file.like is None:
            break
        if file.like not in known or file.like in found:
            others = [other for other in known if other not in found]
            hint = did_you_mean(file.like, others)
            raise BenchError(f"{origin}: like: '{file.like}' is no other shipped model.{hint}")
        found.insert(0, file.like)
    return tuple(found)


def model_settings(name: str, overrides: Sequence[Override]) -> ModelConfig:
    """The settings of a model alone: its file, then what is said about `model` and `sampler`.

    Raises BenchError for any other section.
    """
    origin, file = model_file(name)
    as_model = [sampler_as_model(override) for override in overrides]
    for override in as_model:
        if set(override.tree) != {"model"}:
            raise BenchError(
                f"{override.origin}: only model.KEY=VALUE and sampler.KEY=VALUE mean anything here"
            )
    return over(Layers().add(origin, "model", file.model), as_model, "model").build(ModelConfig)


def evaluation(name: str, overrides: Sequence[Override] = ()) -> EvalConfig:
    """How runs of a model are evaluated: its file, `--set eval.KEY=VALUE` over it."""
    origin, file = model_file(name)
    return over(Layers().add(origin, "eval", file.eval), overrides, "eval").build(EvalConfig)


def training(name: str, overrides: Sequence[Override] = ()) -> TrainConfig:
    """How runs of a model train where no method says otherwise; `--set train.KEY=VALUE` over it."""
    origin, file = model_file(name)
    return over(Layers().add(origin, "train", file.train), overrides, "train").build(TrainConfig)
