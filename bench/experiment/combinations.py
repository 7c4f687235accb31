"""A request → every combination of model, prompts and reward, in each of its variations (`runs`).

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
from bench.experiment.files import ModelFile, Request, Variation
from bench.experiment.model_files import RANDOM, model_file
from bench.experiment.overrides import Override, sampler_as_model

SHIPPED_PROMPTS = "animals"


@dataclass(frozen=True)
class Combination:
    """One model with one prompt set and one reward to train on, by some methods and seeds.

    methods: None for all. stood_in: what was replaced by the model's own. overrides: lowest
    first. weights: what `--weights` said.
    """

    methods: tuple[str, ...] | None
    model: str
    reward: str
    prompts: str
    seeds: tuple[int, ...]
    threads: int
    dcot: bool
    overrides: tuple[Override, ...]
    weights: str | None = None
    stood_in: dict[str, str] = field(default_factory=dict)


def combinations(
    request: Request, origin: str, typed: Sequence[Override], weights: str | None, stand_in: frozenset[str]
) -> list[Combination]:
    """Every combination of a request, each once. Raises BenchError for an unknown model.

    origin: names the experiment file in messages; typed: what flags say, above all. weights: `random`, a
    source, or None. stand_in: which of `reward` and `prompts` the model's own may stand in for.
    """
    found: list[Combination] = []
    for n, variation in enumerate(request.runs or (Variation(),)):
        in_file = (Override(origin, request.settings), Override(f"{origin}: runs.{n}", variation.settings))
        below = [sampler_as_model(override) for override in in_file if override.tree]
        above = [sampler_as_model(override) for override in typed if override.tree]
        common: dict[str, Any] = {
            "methods": request.methods if variation.methods is None else variation.methods,
            "seeds": request.seeds if variation.seeds is None else variation.seeds,
            "dcot": request.dcot if variation.dcot is None else variation.dcot,
            "weights": weights,
        }
        for model in variation.model or request.model:
            file = model_file(model)[1]
            if weights == RANDOM and variation.prompts is None and request.prompts is None:
                file = file.model_copy(update={"prompts": SHIPPED_PROMPTS})  # random weights draw nothing
            placed = () if weights is None else (_weights_override(weights, model),)
            for prompts, reward, stood_in in _products(request, variation, file, stand_in):
                combination = Combination(
                    model=model,
                    reward=reward,
                    prompts=prompts,
                    threads=request.threads or file.threads,
                    overrides=(*below, *placed, *above),
                    stood_in=stood_in,
                    **common,
                )
                if combination not in found:
                    found.append(combination)
    return found


def _weights_override(weights: str, model: str) -> Override:
    """What `--weights` says of a model's source: `random` numbers in its own shapes, or another place."""
    kind, _, rest = model.partition(":")
    if weights != RANDOM and not re.fullmatch("(path|hub):.+", weights):
        raise BenchError(f"--weights {weights}: expected random, path:DIRECTORY or hub:ORG/NAME")
    source = f"{RANDOM}:{rest if kind == 'path' else model}" if weights == RANDOM else weights
    # The model's revision is a commit of its own repository.
    elsewhere: Tree = dict.fromkeys(("path", "revision", "unet_source", "unet_path", "unet_revision"))
    return Override(f"--weights {weights}", {"model": {**elsewhere, "source": source}})


def _products(
    request: Request, variation: Variation, file: ModelFile, stand_in: frozenset[str]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    asked = {
        "prompts": variation.prompts or request.prompts or (file.prompts,),
        "reward": variation.reward or request.reward or (file.reward,),
    }
    names: dict[str, list[str]] = {}
    stood_in: dict[str, str] = {}
    for key, wanted in asked.items():
        replaced = {n: file.stand_ins[n] for n in wanted if key in stand_in and n in file.stand_ins}
        stood_in |= replaced
        names[key] = list(dict.fromkeys(replaced.get(name, name) for name in wanted))
    for prompts, reward in product(names["prompts"], names["reward"]):
        yield prompts, reward, stood_in
