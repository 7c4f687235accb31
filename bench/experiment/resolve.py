"""A combination → its cells: every setting resolved and checked before anything runs.

Precedence, lowest first: defaults in code, configs/models/<model>.yaml, configs/methods/<method>.yaml
(block `default`, then the model's; of a preset, its base's file before its own), the experiment file,
flags, `--set`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.base import registry, reward_names
from bench.base.errors import BenchError
from bench.base.layers import Layers, Tree
from bench.base.strict import Strict
from bench.data import packages
from bench.data.prompts.dcot import DcotConfig
from bench.engine.reward import check_prompts
from bench.experiment import checks, method_files
from bench.experiment.cell_digests import Absent, CellDigests
from bench.experiment.combinations import Combination
from bench.experiment.identity import cell_id
from bench.experiment.model_files import RANDOM, model_file
from bench.experiment.overrides import check_known, check_used, over
from bench.experiment.reward_settings import reward_settings
from bench.experiment.settings import CellConfig, Choice, EvalConfig, ModelChoice, TrainConfig, Training
from bench.models.config import ModelConfig

SECTIONS = ("train", "eval", "model", "reward")


@dataclass(frozen=True)
class Cell:
    """One row of an experiment: a method on a model with a reward and a seed, or the base model.

    absent: what it needs and is not on this machine, if it was resolved without fetching.
    """

    id: str
    config: CellConfig
    absent: tuple[Absent, ...] = ()


def resolve_all(combinations: Sequence[Combination], fetch: bool = True) -> list[Cell]:
    """All cells of an experiment, each once; see `resolve`."""
    found = {cell.id: cell for combination in combinations for cell in resolve(combination, fetch)}
    return list(found.values())


def resolve(combination: Combination, fetch: bool = True) -> list[Cell]:
    """The cells of one combination, the base model's first. Raises BenchError for anything that cannot run.

    fetch: get weights and prompts that are not on this machine; else such cells say what is absent.
    """
    return _Resolver(combination, fetch).cells()


def only_trained(cells: Iterable[Cell], named: bool) -> list[Cell]:
    """The cells with optimizer steps. Raises BenchError if there are none.

    named: the methods were named, so that one that trains nothing is an error, and not left out.
    """
    found = [cell for cell in cells if cell.config.training is not None]
    idle = [cell.config.label for cell in found if not cell.config.trains]
    if idle and (named or len(idle) == len(found)):
        raise BenchError(f"method '{idle[0]}' trains nothing: it has no gradient step to look at")
    return [cell for cell in found if cell.config.trains]


class _Resolver:
    """Puts the layers of settings together, which the cells of a combination share for the most part."""

    def __init__(self, combination: Combination, fetch: bool) -> None:
        self.combination, self.overrides, self.fetch = combination, combination.overrides, fetch
        methods = tuple(registry.entries("method"))
        self.methods = methods if combination.methods is None else combination.methods
        for name in self.methods:
            registry.find("method", name)
        if len(set(self.methods)) < len(self.methods):
            raise BenchError(f"a method is named twice: {', '.join(self.methods)}")
        self.origin, self.file = model_file(combination.model)
        check_known(self.overrides, [*SECTIONS, "dcot", *methods, *registry.entries("reward")])

    def cells(self) -> list[Cell]:
        asked = self.combination
        config = self._section("model", self.file.model).build(ModelConfig)
        model = ModelChoice(name=asked.model, config=config)
        evaluation = self._section("eval", self.file.eval).build(EvalConfig)
        settings = {name: self._reward(name) for name in dict.fromkeys((asked.reward, *evaluation.rewards))}
        chosen = {name: _choice(name, one) for name, one in settings.items()}
        rewards = tuple(chosen[name] for name in sorted(chosen))
        checks.check_solver(model)
        checks.check_media(model, rewards)
        decomposed = over(Layers(), self.overrides, "dcot").build(DcotConfig) if asked.dcot else None
        self._check_used(chosen)
        digests = self._digests(config, settings, decomposed, evaluation)
        shared: dict[str, Any] = {
            "model": model,
            "prompts": asked.prompts,
            "eval": evaluation,
            "eval_rewards": rewards,
            "threads": asked.threads,
            "dcot": decomposed,
            "digests": digests.found,
        }
        configs = [CellConfig(training=None, **shared)]
        for name in self.methods:
            method, train = self._method(name, model, chosen[asked.reward])
            for seed in asked.seeds:
                training = Training(method=method, reward=chosen[asked.reward], seed=seed, train=train)
                configs.append(CellConfig(training=training, **shared))
        return [Cell(cell_id(config), config, tuple(digests.absent)) for config in configs]

    def _digests(
        self,
        model: ModelConfig,
        rewards: Mapping[str, Strict],
        decomposed: DcotConfig | None,
        evaluation: EvalConfig,
    ) -> CellDigests:
        found = CellDigests(self.fetch)
        texts = found.add_prompts(self.combination.prompts, decomposed)
        if texts is not None:
            wanted = any("prompts" in o.tree["eval"] for o in self.overrides if "eval" in o.tree)
            checks.check_held_out(texts, evaluation, wanted)
            for config in rewards.values():
                check_prompts(config, (*texts.train, *texts.eval))
        named: list[tuple[str, str, Strict]] = [("model", "model", model)]
        for name in sorted(rewards):
            section = "reward" if name == self.combination.reward else name
            named.append((f"reward {name}", section, rewards[name]))
        for name, _, config in named:
            found.add_code(name, config)
        for name, section, config in named:
            found.add_files(name, section, config)
        return found

    def _check_used(self, rewards: Iterable[str]) -> None:
        terms = [term for name in rewards for term, _ in reward_names.terms(name)]
        sections = (*SECTIONS, "dcot") if self.combination.dcot else SECTIONS
        registered = map(reward_names.registered, (*rewards, *terms))
        check_used(self.overrides, sorted({*sections, *self.methods, *registered}), "part of this run")

    def _section(self, section: str, own: Tree) -> Layers:
        return over(Layers().add(self.origin, section, own), self.overrides, section)

    def _reward(self, name: str) -> Strict:
        random = self.combination.weights == RANDOM
        config = reward_settings(name, self.overrides, self.combination.reward, random)
        if self.fetch:
            for term, _ in reward_names.terms(name):
                self._reward(term)
            packages.check(config, f"reward {name}")
        return config

    def _method(self, name: str, model: ModelChoice, reward: Choice) -> tuple[Choice, TrainConfig]:
        settings, train = Layers(), Layers().add(self.origin, "train", self.file.train)
        for file, block, found in method_files.blocks(name, model.name):
            settings.add(file, f"{block}.method", found.method)
            train.add(file, f"{block}.train", found.train)
        cls = registry.load("method", name)
        config = over(settings, self.overrides, name, without="train").build(cls.Config)
        method = checks.fitted(name, config, model.config.steps)
        checks.check_frames(name, method.reward_frames, model, reward)
        checks.check_memoryless(name, config, model)
        if method.needs_reward_grad:
            checks.check_differentiable(name, reward)
        resolved = over(train, self.overrides, "train", f"{name}.train").build(TrainConfig)
        if not cls.trains:
            resolved = resolved.untrained()
        elif resolved.steps == 0:
            raise BenchError(f"train.steps is 0, but method '{name}' trains: give it at least one step")
        return _choice(name, config), resolved


def _choice(name: str, config: Strict) -> Choice:
    return Choice(name=name, config=config.model_dump(mode="json"))
