"""A model's networks in their true shapes without its weights: to simulate it, and to try settings out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.base import registry
from bench.base.errors import BenchError
from bench.data import advice, sources
from bench.data.need import Need, needs_of
from bench.engine.chain import MakesVideos
from bench.models import sizes
from bench.models.config import ModelConfig
from bench.models.only_shapes import shapes_only
from bench.models.pipeline import check_weights_are_there


def random_model(config: ModelConfig) -> ModelConfig:
    """The same shapes without weights, as on a GPU. Raises BenchError for a model of unknown shapes."""
    dtype = "float16" if config.dtype == "half" else config.dtype
    changes: dict[str, Any] = {"dtype": dtype, "compile": False, "channels_last": False}
    changes |= {"unet_source": None, "unet_path": None}
    source, known = config.source or "", sizes.architecture_name(config)
    if config.path is not None:
        changes |= {"path": None, "source": f"random:{config.path}"}
    elif source in ("embedded:sd", "embedded:flow"):
        changes["source"] = "random:tiny" if source == "embedded:sd" else "random:tiny-flow"
    elif known is not None and source.startswith("hub:"):
        changes["source"] = f"random:{known}"
    elif not source.startswith("random:"):
        changes["source"] = f"random:{local(needs_of(config, 'model', 'model'))}"
    return config.model_copy(update=changes)


def local(needs: Sequence[Need]) -> Path | None:
    """Where the first of the files are. Raises BenchError if some are not on this machine."""
    found = [sources.find(need) for need in needs]
    for need, place in zip(needs, found, strict=True):
        if place is None:
            raise BenchError(
                f"the shapes of {need.place} ({need.name}) are not known without its files, and they are not "
                f"on this machine:\n  {advice.bench_command(need)}"
            )
    return found[0] if found else None


def picture_shape(config: ModelConfig) -> tuple[int, ...]:
    """What the model makes, [3, H, W] or [F, 3, H, W], from its chain built without weights, in a second.

    Raises BenchError for what loading the model would stop at, as far as its weights need not be read.
    """
    needs = needs_of(config, "model", "model")
    places = {need.setting.rpartition(".")[2]: sources.find(need) for need in needs}
    if "path" in places and None not in places.values():
        check_weights_are_there(config.model_copy(update=places), config.family)
    with shapes_only(lambda network: None):
        chain: Any = registry.load("model", config.family)(random_model(config), torch.device("meta"))
    pixels = chain.pixels
    return (*((chain.frames,) if isinstance(chain, MakesVideos) else ()), 3, *pixels)
