"""What diffusers' pipelines are made of, by the name of their class: a blueprint for each that can be loaded.

A family's file in this folder says in its class which pipelines it loads (`pipelines`, read without importing
the file), and has a blueprint for each of them in `BLUEPRINTS`. So a new family is a new file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.base import registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.models.config import ModelConfig, SolverName
    from bench.models.solver import Solver
    from bench.models.text import TextEncoder

# From a scheduler's config, a solver's name, the numbers of steps and of the network's tokens in a picture.
MakeSolver: TypeAlias = "Callable[[dict[str, Any], SolverName, int, int], Solver]"


@dataclass(frozen=True)
class Files:
    """Where the config files of a pipeline are: its own directory, and its network's, or another's in its
    place. parts: the names of the parts with weights that it has."""

    directory: Path
    network: Path
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Blueprint:
    """The pipelines of one class.

    network: the part that is trained. parts: the classes of the parts with weights, by the names of their
    directories; optional: those that a pipeline may lack. text: embeds prompts. solver: makes a solver, and
    raises BenchError for what it does not understand. check: raises BenchError for settings of the network
    that would run and mean something else. left_out: arguments that keep parts from being loaded which only
    judge or watermark pictures, or need them as input. shifted: latents may have a shift_factor. upcast: a
    decoder whose config says force_upcast leaves the range of float16.
    """

    network: str
    parts: Mapping[str, type[nn.Module]]
    text: Callable[[Any, ModelConfig, torch.device, torch.dtype], TextEncoder]
    solver: MakeSolver
    check: Callable[[Files], None]
    left_out: Mapping[str, Any] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    shifted: bool = False
    upcast: bool = False


def known_pipelines() -> dict[str, str]:
    """Name of a pipeline's class → family that loads it."""
    return {
        pipeline: family
        for family, entry in registry.own("model").items()
        for pipeline in entry.declared("pipelines") or ()
    }


def settings_of(family: str) -> str:
    """What has to be set, as one types it, to load a pipeline of that family from any directory."""
    return str(registry.find("model", family).declared("usual") or "")


def blueprint_of(pipeline: str) -> Blueprint:
    """The blueprint of a known class of pipelines."""
    module = importlib.import_module(registry.find("model", known_pipelines()[pipeline]).module)
    found: Blueprint = module.BLUEPRINTS[pipeline]
    return found
