"""The settings of a reward: its file, what its name says (a sum, a function), and what is said over both."""

from __future__ import annotations

from collections.abc import Sequence

from bench.base import registry, reward_names
from bench.base.layers import Layers, Tree, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.data.need import HasRandom
from bench.experiment.overrides import Override, over


def reward_settings(
    name: str, overrides: Sequence[Override] = (), trained: str | None = None, random: bool = False
) -> Strict:
    """A reward's settings as it ships, with the overrides' section of its name over them.

    trained: the reward that is trained on, which the section `reward` is about. random: random numbers for
    weights, in the true shapes. Raises BenchError for an unknown reward or a setting that does not fit it.
    """
    config_class, files = registry.load("reward", name).Config, shipped("rewards")
    found, own = Layers(), reward_names.registered(name)
    if name in files:
        found.add(readable(files[name]), "", read_yaml(files[name]))
    if terms := reward_names.terms(name):
        settings = [_term(term, weight, overrides, trained, random) for term, weight in terms]
        found.add(name, "", {"terms": settings})
    if function := reward_names.function(name):
        found.add(name, "", {"function": function})
    sections = dict.fromkeys(("reward", own, name) if name == trained else (own, name))
    config = over(found, overrides, *sections).build(config_class, own)
    if not random or not isinstance(config, HasRandom):
        return config
    return found.add("--weights random", "", {"source": config.random_source, "path": None}).build(
        config_class
    )


def _term(name: str, weight: float, overrides: Sequence[Override], trained: str | None, random: bool) -> Tree:
    config = reward_settings(name, overrides, trained, random)
    return {"name": name, "weight": weight, "config": config.model_dump(mode="json")}
