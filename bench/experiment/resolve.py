"""A request → its cells: every setting resolved and checked before anything runs.

Precedence, lowest first: defaults in code, configs/models/<model>.yaml, configs/methods/<method>.yaml
(block `default`, then the model's; of a preset, its base's file before its own), the experiment file,
flags, `--set`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.base import registry, reward_names
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, Tree, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.data import digests, packages, sources
from bench.data.need import HasRandom, HasSource, Need, needs_of
from bench.data.prompts import dcot
from bench.data.prompts.dcot import DcotConfig
from bench.engine.method import Method
from bench.engine.reward import is_differentiable, media_of
from bench.experiment import method_files
from bench.experiment.combinations import Part
from bench.experiment.identity import cell_id
from bench.experiment.model_files import RANDOM, model_file
from bench.experiment.settings import CellConfig, Choice, EvalConfig, ModelChoice, TrainConfig, Training
from bench.models.config import ModelConfig

SECTIONS = ("train", "eval", "model", "reward")
MISSING = "missing "  # begins the digest of what is not on this machine; what it is follows


@dataclass(frozen=True)
class Cell:
    """One row of an experiment: a method on a model with a reward and a seed, or the base model."""

    id: str
    config: CellConfig


def resolve_all(parts: Sequence[Part], fetch: bool = True) -> list[Cell]:
    """All cells of a request, each once; see `resolve`."""
    found = {cell.id: cell for part in parts for cell in resolve(part, fetch)}
    return list(found.values())


def resolve(part: Part, fetch: bool = True) -> list[Cell]:
    """The cells of one part, the base model's first. Raises BenchError for anything that cannot run.

    fetch: get weights and prompts that are not on this machine; else such cells have digests `missing …`.
    """
    return _Resolver(part, fetch).cells()


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
    """Holds what all cells of a request share."""

    def __init__(self, part: Part, fetch: bool) -> None:
        self.part, self.layers, self.fetch = part, part.layers, fetch
        methods = registry.entries("method")
        self.methods = tuple(methods) if part.methods is None else part.methods
        for name in self.methods:
            registry.find("method", name)
        if len(set(self.methods)) < len(self.methods):
            raise BenchError(f"a method is named twice: {', '.join(self.methods)}")
        self.origin, self.file = model_file(part.model)
        self.reward, self.prompts = part.reward, part.prompts
        self.sections = (*SECTIONS, "dcot") if part.dcot else SECTIONS
        self._check_sections()

    def _check_sections(self) -> None:
        known = [*SECTIONS, "dcot", *registry.entries("method"), *registry.entries("reward")]
        for origin, tree, _ in self.layers:
            for section, settings in tree.items():
                if section not in known:
                    raise BenchError(
                        f"{origin}: unknown section '{section}'.{did_you_mean(section, known)} "
                        f"Known: {', '.join(known)}"
                    )
                if not isinstance(settings, Mapping):
                    raise BenchError(f"{origin}: {section}: expected a mapping, found {settings!r}")

    def _check_used(self, used: set[str]) -> None:
        """A file may carry settings for methods that are left out; what was typed must have a meaning."""
        for origin, tree, typed in self.layers:
            for section in tree:
                if typed and section not in used:
                    raise BenchError(
                        f"{origin}: '{section}' is not part of this run: {', '.join(sorted(used))}"
                    )

    def cells(self) -> list[Cell]:
        model = self._section("model", self.file.model).build(ModelConfig)
        evaluation = self._section("eval", self.file.eval).build(EvalConfig)
        trained = self._reward(self.reward)
        others = (self._reward(name) for name in evaluation.rewards if name != self.reward)
        rewards = tuple(sorted((trained, *others), key=lambda choice: choice.name))
        self._check_media(model, rewards)
        decomposed = self._over(Layers(), "dcot").build(DcotConfig) if self.part.dcot else None
        named = [choice.name for choice in rewards]
        parts = [term for name in named for term, _ in reward_names.terms(name)]
        rewards_named = map(reward_names.registered, (*named, *parts))
        self._check_used({*self.sections, *self.methods, *rewards_named})
        shared: dict[str, Any] = {
            "model": ModelChoice(name=self.part.model, config=model),
            "prompts": self.prompts,
            "eval": evaluation,
            "eval_rewards": rewards,
            "threads": self.part.threads,
            "dcot": decomposed,
            "digests": self._digests(model, rewards, decomposed),
        }
        configs = [CellConfig(training=None, **shared)]
        for name in self.methods:
            method, train = self._method(name, model, trained)
            for seed in self.part.seeds:
                training = Training(method=method, reward=trained, seed=seed, train=train)
                configs.append(CellConfig(training=training, **shared))
        return [Cell(cell_id(config), config) for config in configs]

    def _over(self, layers: Layers, *sections: str) -> Layers:
        """Put what the experiment file, flags and --set say about the sections on top, in their order."""
        for origin, tree, _ in self.layers:
            for section in sections:
                outer, _, inner = section.partition(".")
                settings = tree.get(outer, {})
                if inner:
                    settings = settings.get(inner, {})
                elif outer in registry.entries("method"):
                    settings = {key: value for key, value in settings.items() if key != "train"}
                layers.add(origin, section, settings)
        return layers

    def _section(self, section: str, default: Tree) -> Layers:
        return self._over(Layers().add(self.origin, section, default), section)

    def _reward(self, name: str) -> Choice:
        layers, cls = Layers(), registry.load("reward", name)
        files = shipped("rewards")
        if name in files:
            layers.add(readable(files[name]), "", read_yaml(files[name]))
        if terms := reward_names.terms(name):
            layers.add(name, "", {"terms": [self._term(reward, weight) for reward, weight in terms]})
        if function := reward_names.function(name):
            layers.add(name, "", {"function": function})
        own = reward_names.registered(name)
        sections = ("reward", own) if name == self.reward else (own,)
        config = self._over(layers, *sections).build(cls.Config, own)
        if self.part.weights == RANDOM and isinstance(config, HasRandom):
            layers.add("--weights random", "", {"source": config.random_source, "path": None})
            config = layers.build(cls.Config)
        if self.fetch:
            packages.check(config, f"reward {name}")
        return Choice(name=name, config=config.model_dump(mode="json"))

    def _term(self, reward: str, weight: float) -> Tree:
        """One term of a sum of rewards."""
        choice = self._reward(reward)
        return {"name": choice.name, "weight": weight, "config": choice.config}

    def _method(self, name: str, model: ModelConfig, reward: Choice) -> tuple[Choice, TrainConfig]:
        settings, train = Layers(), Layers().add(self.origin, "train", self.file.train)
        for file, block, found in method_files.blocks(name, self.part.model):
            settings.add(file, f"{block}.method", found.method)
            train.add(file, f"{block}.train", found.train)
        cls = registry.load("method", name)
        config = self._over(settings, name).build(cls.Config)
        fitted = _fitted(name, config, model.steps)
        self._check_frames(name, fitted.reward_frames, model.frames, reward)
        if fitted.needs_reward_grad:
            self._check_differentiable(name, reward, "fo" in cls.Config.model_fields)
        resolved = self._over(train, "train", f"{name}.train").build(TrainConfig)
        if not cls.trains:
            resolved = resolved.untrained()
        elif resolved.steps == 0:
            raise BenchError(f"train.steps is 0, but method '{name}' trains: give it at least one step")
        return Choice(name=name, config=config.model_dump(mode="json")), resolved

    def _check_differentiable(self, method: str, reward: Choice, has_fo: bool) -> None:
        scorer = registry.load("reward", reward.name)
        if is_differentiable(scorer, scorer.Config.model_validate(reward.config)):
            return
        way_out = "Choose a differentiable reward, or ddpo, reinforce, zo, or rlr with --set rlr.fo=false."
        if has_fo:
            way_out = f"Its form without the first-order term does not: --set {method}.fo=false"
        raise BenchError(
            f"method '{method}' needs the gradient of the reward, and reward '{self.reward}' has none. "
            + way_out
        )

    def _check_frames(self, method: str, wanted: int | None, frames: int | None, reward: Choice) -> None:
        """Frames that are drawn must be there, and a reward of whole videos sees no motion in them."""
        if wanted is None:
            return
        wrong = None
        if wanted > (frames or 0):
            made = "pictures, which have no frames" if frames is None else f"videos of {frames} frames"
            wrong = f"model '{self.part.model}' makes {made}"
        elif _scores_videos(reward):
            wrong = f"reward '{reward.name}' scores whole videos"
        if wrong is not None:
            way_out = f"--set {method}.frames=all"
            raise BenchError(f"{method}.frames: the reward is to see {wanted}, and {wrong}: {way_out}")

    def _check_media(self, model: ModelConfig, rewards: Iterable[Choice]) -> None:
        """A reward of videos needs a model that makes them."""
        for choice in rewards:
            if model.frames is None and _scores_videos(choice):
                raise BenchError(
                    f"reward '{choice.name}' scores videos, and model '{self.part.model}' makes pictures: "
                    "choose another reward, or a model of family video"
                )

    def _digests(
        self, model: ModelConfig, rewards: Iterable[Choice], decomposed: DcotConfig | None
    ) -> dict[str, str]:
        """What the names stand for; finds, or fetches, prompts and weights on the way."""
        found = self._prompts_digests(decomposed)
        named: list[tuple[str, str, object]] = [("model", "model", model)]
        for choice in rewards:
            section = "reward" if choice.name == self.reward else choice.name
            config = registry.load("reward", choice.name).Config.model_validate(choice.config)
            named.append((f"reward {choice.name}", section, config))
        for name, _, config in named:
            if isinstance(config, digests.HasDigest) and (code := config.digest()):
                found[name] = code
            if isinstance(config, HasSource) and (config.source or "").startswith(f"{RANDOM}:"):
                found[name] = config.source or ""
        if model.path is None and (model.source or "").startswith(f"{RANDOM}:"):
            found["model"] = _random_digest(model)
        for name, section, config in named:
            for need in needs_of(config, name, section):
                found[need.name] = self._digest(need)
        return found

    def _digest(self, need: Need) -> str:
        directory = sources.locate(need) if self.fetch else sources.find(need)
        if directory is None:
            return f"{MISSING}{need.source}"
        if need.kind != "hub":
            return digests.digest(directory)
        return digests.digest(directory, need.files, need.ignored)  # a snapshot holds what others asked for

    def _prompts_digests(self, decomposed: DcotConfig | None) -> dict[str, str]:
        """Of the prompts and, with DCoT, of what they are decomposed into."""
        from bench.data import prompts

        for need in prompts.needs(self.prompts):
            if not self.fetch and sources.find(need) is None:
                return {"prompts": f"{MISSING}{self.prompts}"}
            sources.locate(need)
        texts = prompts.load(self.prompts)
        found = {"prompts": digests.text_digest((*texts.train, "", *texts.eval))}
        if decomposed is None:
            return found
        wanted = (*texts.train, *texts.eval)
        if not self.fetch and decomposed.llm and len(dcot.known(wanted, decomposed)) < len(wanted):
            found["dcot"] = f"{MISSING}{decomposed.llm}"  # a plan asks no language model
        else:
            found["dcot"] = dcot.digest(dcot.stages(wanted, decomposed))
        return found


def _random_digest(model: ModelConfig) -> str:
    """What random weights are random weights of. Raises BenchError for an unknown architecture."""
    from bench.models.random_weights import architecture

    place = (model.source or "").removeprefix(f"{RANDOM}:")
    return f"{RANDOM}:{digests.digest(architecture(place), ('*.json',))}"


def _scores_videos(reward: Choice) -> bool:
    cls = registry.load("reward", reward.name)
    return media_of(cls, cls.Config.model_validate(reward.config)) == "video"


def _fitted(name: str, config: Strict, steps: int) -> Method:
    """The method. If its settings do not fit the chain, what its base says is said of the preset."""
    entry = registry.find("method", name)
    try:
        return entry.load()(config, steps)
    except BenchError as error:
        if entry.base is None:
            raise
        raise BenchError(f"preset '{name}' of {entry.base}: {error}") from error
