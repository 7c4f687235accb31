"""Models, rewards and prompt sets by name: what files each needs, and whether they are on this machine."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.base import registry, reward_names
from bench.base.errors import BenchError
from bench.base.layers import Layers, Tree, parse_setting, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.data import prompts
from bench.data.need import Need, needs_of
from bench.data.sources import find
from bench.experiment.model_files import Layer, model_file, model_settings
from bench.experiment.settings import EvalConfig, TrainConfig
from bench.models.config import ModelConfig
from bench.models.sizes import model_gigabytes

Kind = Literal["model", "reward", "prompts"]
ALL = "all"
SECTIONS = ("model", "sampler", "train", "eval")  # of --set, beside rewards
COMPOSED = (reward_names.SUM, reward_names.FUNCTION)  # of other rewards, or of a user's function


@dataclass(frozen=True)
class Piece:
    """One model, reward or prompt set, its settings (None: it has none), and what it cannot run without."""

    kind: Kind
    name: str
    config: Strict | None
    needs: tuple[Need, ...]

    @property
    def label(self) -> str:
        """`model sd14`."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Found:
    """Whether a need is met here. path: where; size: bytes; problem: why a named place is no good."""

    need: Need
    path: Path | None
    size: int = 0
    problem: str | None = None


def asked(
    models: str | None, rewards: str | None, prompt_sets: str | None, settings: Sequence[str] = ()
) -> list[Piece]:
    """The pieces that a run of what is named needs, each once; names have commas between them.

    A model brings the reward and the prompts of its file, unless others are named, and always the rewards
    that it is evaluated by. rewards: `all` for every one that is registered; weights in a sum (hpsv2:1) are
    passed over. settings: --set SECTION.KEY=VALUE of `model`, `train`, `eval` and of rewards. Raises
    BenchError for an unknown name.
    """
    layers = [Layer(*parse_setting(text)) for text in settings]
    found: dict[str, Piece] = {}
    for name in split(models):
        file = model_file(name)[1]
        _add(found, model_piece(name, layers))
        for reward in (*((file.reward,) if rewards is None else ()), *evaluation(name, layers).rewards):
            _add(found, reward_piece(reward, layers))
        if prompt_sets is None:
            _add(found, prompts_piece(file.prompts))
    for name in reward_list() if rewards == ALL else rewards_of(rewards):
        _add(found, reward_piece(name, layers))
    for name in prompts.BUILT_IN if prompt_sets == ALL else split(prompt_sets):
        _add(found, prompts_piece(name))
    _check_used(layers, [piece.name for piece in found.values()])
    return list(found.values())


def _add(found: dict[str, Piece], piece: Piece) -> None:
    found.setdefault(piece.label, piece)


def _check_used(layers: Sequence[Layer], names: Sequence[str]) -> None:
    for layer in layers:
        for section in layer.tree:
            if section not in (*SECTIONS, *names):
                known = ", ".join((*SECTIONS, *names))
                raise BenchError(f"{layer.origin}: '{section}' is not among what is named: {known}")


def evaluation(model: str, layers: Sequence[Layer] = ()) -> EvalConfig:
    """How runs of a model are evaluated: its file, `--set eval.KEY=VALUE` over it."""
    origin, file = model_file(model)
    return _section("eval", origin, file.eval, layers).build(EvalConfig)


def training(model: str, layers: Sequence[Layer] = ()) -> TrainConfig:
    """How runs of a model train where no method says otherwise; `--set train.KEY=VALUE` over it."""
    origin, file = model_file(model)
    return _section("train", origin, file.train, layers).build(TrainConfig)


def _section(section: str, origin: str, own: Tree, layers: Sequence[Layer]) -> Layers:
    found = Layers().add(origin, section, own)
    for layer in layers:
        if section in layer.tree:
            found.add(layer.origin, section, layer.tree[section])
    return found


def rewards_of(text: str | None) -> list[str]:
    """The rewards that `--reward` names, those of a sum one by one."""
    return [term for name in reward_names.listed(text or "") for term in _terms(name)]


def _terms(name: str) -> list[str]:
    return [term for term, _ in reward_names.terms(name)] or [name]


def split(text: str | None) -> list[str]:
    """Names with commas between them."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def reward_list() -> list[str]:
    """Registered rewards that stand for themselves and whose files can be used."""
    found = registry.entries("reward").items()
    return [name for name, entry in found if name not in COMPOSED and entry.problem is None]


def model_piece(name: str, layers: Sequence[Layer] = ()) -> Piece:
    """A model by the name that --model takes."""
    config = model_settings(name, [layer for layer in layers if {"model", "sampler"} & set(layer.tree)])
    return Piece("model", name, config, needs_of(config, "model", "model"))


def reward_piece(name: str, layers: Sequence[Layer] = ()) -> Piece:
    """A reward as it ships, with `--set NAME.KEY=VALUE` over it. Imports its module."""
    cls = registry.load("reward", name)
    settings, files = Layers(), shipped("rewards")
    if name in files:
        settings.add(readable(files[name]), "", read_yaml(files[name]))
    if terms := reward_names.terms(name):
        parts = [(term, weight, reward_piece(term, layers).config) for term, weight in terms]
        tree = [
            {"name": n, "weight": w, "config": c.model_dump(mode="json") if c else {}} for n, w, c in parts
        ]
        settings.add(name, "", {"terms": tree})
    if function := reward_names.function(name):
        settings.add(name, "", {"function": function})
    for origin, tree, _ in layers:
        if name in tree:
            settings.add(origin, name, tree[name])
    config = settings.build(cls.Config, reward_names.registered(name))
    return Piece("reward", name, config, needs_of(config, f"reward {name}", name))


def prompts_piece(name: str) -> Piece:
    """A built-in prompt set or a user's file."""
    needs = prompts.needs(name)
    if not needs and name not in prompts.BUILT_IN:
        prompts.load(name)  # says what is wrong with a file, or that nothing is called so
    return Piece("prompts", name, None, needs)


def look(need: Need) -> Found:
    """Whether the files are here."""
    try:
        path = find(need)
    except BenchError as error:
        return Found(need, None, problem=str(error).splitlines()[0])
    return Found(need, path, 0 if path is None else _size(path, need))


def complete(piece: Piece) -> bool:
    """Whether everything that it needs is here."""
    return all(look(need).path is not None for need in piece.needs)


def gigabytes(piece: Piece) -> float | None:
    """Size of its downloads, as far as all are known."""
    sizes = [need.gigabytes for need in piece.needs]
    if isinstance(piece.config, ModelConfig):
        return model_gigabytes(piece.config)
    return None if any(size is None for size in sizes) else sum(size or 0.0 for size in sizes)


def _size(directory: Path, need: Need) -> int:
    """Bytes of the files that are wanted; a file that is linked twice counts once."""
    files = {file.resolve() for file in _wanted(directory, need)}
    return sum(file.stat().st_size for file in files)


def _wanted(directory: Path, need: Need) -> Iterator[Path]:
    for file in directory.rglob("*"):
        inside = file.relative_to(directory).as_posix()
        known = need.kind != "hub" or any(fnmatch.fnmatch(inside, pattern) for pattern in need.files)
        if file.is_file() and known:
            yield file
