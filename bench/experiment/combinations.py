"""A request → its parts: every combination of model, prompts and reward, of every one of its runs.

An experiment that was made for one model and is run on another (`--config table2 --model tiny`) names rewards
and prompts that may mean nothing there. The other model's file says which of its own stand in for them; what
the user typed is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.base.errors import BenchError
from bench.base.layers import Tree
from bench.experiment.model_files import RANDOM, Layer, model_file, sampler_as_model
from bench.experiment.settings import ModelFile, Request, Run

SHIPPED_PROMPTS = "animals"


@dataclass(frozen=True)
class Part:
    """One model with one prompt set and one reward to train on, by some methods and seeds.

    methods: None for all. stood_in: what was replaced by the model's own. layers: lowest first. weights: what
    `--weights` said.
    """

    methods: tuple[str, ...] | None
    model: str
    reward: str
    prompts: str
    seeds: tuple[int, ...]
    threads: int
    dcot: bool
    layers: tuple[Layer, ...]
    weights: str | None = None
    stood_in: dict[str, str] = field(default_factory=dict)


def parts(
    request: Request, origin: str, typed: Sequence[Layer], weights: str | None, stand_in: frozenset[str]
) -> list[Part]:
    """Every part of a request. Raises BenchError for an unknown model.

    origin: names the experiment file in messages; typed: what flags say, above all. weights: `random`, a
    source, or None. stand_in: which of `reward` and `prompts` the model's own may stand in for.
    """
    found: list[Part] = []
    for n, run in enumerate(request.runs or (Run(),)):
        layers = [Layer(origin, request.settings), Layer(f"{origin}: runs.{n}", run.settings), *typed]
        layers = [sampler_as_model(layer) for layer in layers if layer.tree]
        own = len(layers) - len(typed)
        common: dict[str, Any] = {
            "methods": request.methods if run.methods is None else run.methods,
            "seeds": request.seeds if run.seeds is None else run.seeds,
            "dcot": request.dcot if run.dcot is None else run.dcot,
            "weights": weights,
        }
        for model in run.model or request.model:
            file = model_file(model)[1]
            threads = request.threads or file.threads
            if weights == RANDOM and run.prompts is None and request.prompts is None:
                file = file.model_copy(update={"prompts": SHIPPED_PROMPTS})  # random weights draw nothing
            for prompts, reward, stood_in in _combinations(request, run, file, stand_in):
                placed = () if weights is None else (_weights_layer(weights, model),)
                over = (*layers[:own], *placed, *layers[own:])
                part = Part(
                    model=model,
                    reward=reward,
                    prompts=prompts,
                    threads=threads,
                    layers=over,
                    stood_in=stood_in,
                    **common,
                )
                if part not in found:
                    found.append(part)
    return found


def _weights_layer(weights: str, model: str) -> Layer:
    """What `--weights` says of a model's source: `random` numbers in its own shapes, or another place."""
    kind, _, rest = model.partition(":")
    if weights != RANDOM and not re.fullmatch("(path|hub):.+", weights):
        raise BenchError(f"--weights {weights}: expected random, path:DIRECTORY or hub:ORG/NAME")
    source = f"{RANDOM}:{rest if kind == 'path' else model}" if weights == RANDOM else weights
    # The model's revision is a commit of its own repository.
    elsewhere: Tree = dict.fromkeys(("path", "revision", "unet_source", "unet_path", "unet_revision"))
    return Layer(f"--weights {weights}", {"model": {**elsewhere, "source": source}})


def _combinations(
    request: Request, run: Run, file: ModelFile, stand_in: frozenset[str]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(prompts, reward, what was replaced) for one model."""
    asked = {
        "prompts": run.prompts or request.prompts or (file.prompts,),
        "reward": run.reward or request.reward or (file.reward,),
    }
    names: dict[str, list[str]] = {}
    stood_in: dict[str, str] = {}
    for key, wanted in asked.items():
        replaced = {n: file.stand_ins[n] for n in wanted if key in stand_in and n in file.stand_ins}
        stood_in |= replaced
        names[key] = list(dict.fromkeys(replaced.get(name, name) for name in wanted))
    for prompts, reward in product(names["prompts"], names["reward"]):
        yield prompts, reward, stood_in
