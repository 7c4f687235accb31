"""The file of a model's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, Tree, load_config, readable, shipped
from bench.experiment.settings import ModelFile
from bench.models.config import ModelConfig

RANDOM = "random"


SAMPLER = ("steps", "guidance", "solver")  # `sampler.KEY` is another name of `model.KEY`


class Layer(NamedTuple):
    """Settings over the defaults: origin for messages, the tree that --set addresses, and if it was typed."""

    origin: str
    tree: Tree
    typed: bool = False


def model_file(name: str) -> tuple[str, ModelFile]:
    """A model's settings and where they stand: shipped, or a file; `path:` and `hub:` take the defaults."""
    kind, colon, rest = name.partition(":")
    if colon and kind in ("path", "hub") and rest:
        return name, ModelFile(model={"source": name})
    known = shipped("models")
    if name.endswith((".yaml", ".yml")):
        from pathlib import Path

        return name, load_config(Path(name), ModelFile)
    if name not in known:
        names = [*known, "path:DIRECTORY", "hub:ORG/NAME", "FILE.yaml"]
        raise BenchError(f"unknown model '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}")
    return readable(known[name]), load_config(known[name], ModelFile)


def model_settings(name: str, layers: Sequence[Layer]) -> ModelConfig:
    """The settings of a model alone: its file, then what the layers say about `model` and `sampler`."""
    origin, file = model_file(name)
    settings = Layers().add(origin, "model", file.model)
    for layer in map(sampler_as_model, layers):
        if set(layer.tree) != {"model"}:
            raise BenchError(f"{layer.origin}: only model.KEY=VALUE and sampler.KEY=VALUE mean anything here")
        settings.add(layer.origin, "model", layer.tree["model"])
    return settings.build(ModelConfig)


def sampler_as_model(layer: Layer) -> Layer:
    """The layer with `sampler.steps` and its like said as `model.steps`."""
    if "sampler" not in layer.tree:
        return layer
    tree = dict(layer.tree)
    sampler = tree.pop("sampler")
    if not isinstance(sampler, dict):
        raise BenchError(f"{layer.origin}: sampler: expected a mapping, found {sampler!r}")
    for key in sampler:
        if key not in SAMPLER:
            hint = did_you_mean(str(key), SAMPLER)
            raise BenchError(f"{layer.origin}: sampler.{key}: unknown key.{hint} Known: {', '.join(SAMPLER)}")
    tree["model"] = {**tree.pop("model", {}), **sampler}
    return layer._replace(tree=tree)
