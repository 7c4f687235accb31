"""configs/methods/*.yaml: the settings that a method class or a preset ships with, by model.

A file has a block `default` and blocks for models, and `search` for tuning (`bench.experiment.search`). A
preset's file (key `base`) lies over its base's: base `default`, base's model, preset `default`, preset's
model, each over the one before. A model's blocks lie over those of the model that it is `like`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from bench.base import registry
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.experiment.files import MethodBlock
from bench.experiment.model_files import alike


class Block(NamedTuple):
    """One block that applies: the file and the block's name, for messages, and what it says."""

    file: str
    name: str
    settings: MethodBlock


def blocks(method: str, model: str) -> tuple[Block, ...]:
    """What the files say about a method on a model, lowest first. Raises BenchError for a faulty file."""
    base = registry.find("method", method).base
    models = alike(model)
    own = file_blocks(method, models)
    return own if base is None else (*file_blocks(base, models), *own)


def shipped_config(method: str, model: str, settings: Mapping[str, Any] | None = None) -> Strict:
    """The method's config as it ships for a model, with `settings` (a nested mapping) over it."""
    layers = Layers()
    for block in blocks(method, model):
        layers.add(block.file, f"{block.name}.method", block.settings.method)
    return layers.add("settings", method, settings or {}).build(registry.load("method", method).Config)


@cache
def file_blocks(name: str, models: tuple[str, ...]) -> tuple[Block, ...]:
    """The blocks of configs/methods/<name>.yaml alone, `default` and those of models; none without a file."""
    files = shipped("methods")
    if name not in files:
        return ()
    file = readable(files[name])
    tree = {key: value for key, value in read_yaml(files[name]).items() if key not in ("base", "search")}
    known = ["default", *shipped("models")]
    for key, value in tree.items():
        if key not in known:
            raise BenchError(f"{file}: {key}: unknown model.{did_you_mean(str(key), ['base', *known])}")
        if not isinstance(value, Mapping | None):
            raise BenchError(f"{file}: {key}: expected a mapping, found {value!r}")
    return tuple(
        Block(file, key, Layers().add(file, key, tree[key] or {}).build(MethodBlock))
        for key in ("default", *models)
        if key in tree
    )
