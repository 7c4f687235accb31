"""Models, rewards and prompt sets by name: what files each needs, and whether they are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.base import registry, reward_names, units
from bench.base.strict import Strict
from bench.data import prompts
from bench.data.need import Need, needs_of
from bench.data.sources import look
from bench.experiment.model_files import evaluation, model_file, model_settings
from bench.experiment.overrides import Override, check_used, typed
from bench.experiment.reward_settings import reward_settings
from bench.models.config import ModelConfig
from bench.models.sizes import model_gigabytes

Kind = Literal["model", "reward", "prompts"]
ALL = "all"
SECTIONS = ("model", "sampler", "train", "eval")  # of --set, beside rewards
COMPOSED = (reward_names.SUM, reward_names.FUNCTION)  # of other rewards, or of a user's function


@dataclass(frozen=True)
class Ingredient:
    """One model, reward or prompt set, its settings (None: it has none), and what it cannot run without."""

    kind: Kind
    name: str
    config: Strict | None
    needs: tuple[Need, ...]

    @property
    def label(self) -> str:
        """`model sd14`."""
        return f"{self.kind} {self.name}"

    @property
    def complete(self) -> bool:
        """Whether everything that it needs is on this machine."""
        return all(look(need).path is not None for need in self.needs)

    @property
    def gigabytes(self) -> float | None:
        """Size of its downloads; None where one is unknown."""
        if isinstance(self.config, ModelConfig):
            return model_gigabytes(self.config)
        sizes = [need.gigabytes for need in self.needs]
        return None if None in sizes else sum(size or 0.0 for size in sizes)


def named(
    models: str | None, rewards: str | None, prompt_sets: str | None, settings: Sequence[str] = ()
) -> list[Ingredient]:
    """The ingredients of a run of what is named, each once; names have commas between them.

    A model brings the reward and the prompts of its file, unless others are named, and always the rewards
    that it is evaluated by. rewards: `all` for every one that is registered; weights in a sum (hpsv2:1) are
    passed over. settings: --set SECTION.KEY=VALUE of `model`, `train`, `eval` and of rewards. Raises
    BenchError for an unknown name.
    """
    overrides, found = typed(settings), list[Ingredient]()
    for name in units.names(models):
        file = model_file(name)[1]
        found.append(model_ingredient(name, overrides))
        own = (file.reward,) if rewards is None else ()
        found += [reward_ingredient(one, overrides) for one in (*own, *evaluation(name, overrides).rewards)]
        if prompt_sets is None:
            found.append(prompts_ingredient(file.prompts))
    found += [reward_ingredient(one, overrides) for one in reward_list(rewards)]
    sets = list(prompts.BUILT_IN) if prompt_sets == ALL else units.names(prompt_sets)
    found += map(prompts_ingredient, sets)
    unique = list({one.label: one for one in found}.values())
    check_used(overrides, [*SECTIONS, *(one.name for one in unique)], "among what is named")
    return unique


def reward_list(text: str | None = ALL) -> list[str]:
    """The rewards that `--reward` names, those of a sum one by one; `all`: that stand for
    themselves and whose files can be used."""
    if text == ALL:
        entries = registry.entries("reward").items()
        return [name for name, entry in entries if name not in COMPOSED and entry.problem is None]
    names = reward_names.listed(text or "")
    return [term for name in names for term in [one for one, _ in reward_names.terms(name)] or [name]]


def model_ingredient(name: str, overrides: Sequence[Override] = ()) -> Ingredient:
    """A model by the name that --model takes."""
    config = model_settings(name, [one for one in overrides if {"model", "sampler"} & set(one.tree)])
    return Ingredient("model", name, config, needs_of(config, "model", "model"))


def reward_ingredient(name: str, overrides: Sequence[Override] = ()) -> Ingredient:
    """A reward as it ships, with `--set NAME.KEY=VALUE` over it. Imports its module."""
    config = reward_settings(name, overrides)
    return Ingredient("reward", name, config, needs_of(config, f"reward {name}", name))


def prompts_ingredient(name: str) -> Ingredient:
    """A built-in prompt set or a user's file."""
    needs = prompts.needs(name)
    if not needs and name not in prompts.BUILT_IN:
        prompts.load(name)  # says what is wrong with a file, or that nothing is called so
    return Ingredient("prompts", name, None, needs)
