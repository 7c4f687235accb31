"""What can run here: model × reward × class of method, and what to type about what cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.base import registry
from bench.base.console import plain
from bench.base.units import GIB
from bench.cli.doctor.machine import available_memory
from bench.data.packages import absent
from bench.data.sources import look
from bench.engine.at_once import least
from bench.engine.reward import is_differentiable, media_of
from bench.experiment import method_files
from bench.experiment.ingredients import ALL, Ingredient, reward_ingredient, reward_list
from bench.experiment.model_files import evaluation, model_file, training
from bench.experiment.overrides import Override
from bench.models.config import ModelConfig
from bench.models.sizes import Batches, Memory, Use, memory


@dataclass(frozen=True)
class Room:
    """What a cell may take: of the roomiest GPU, or of main memory."""

    gpu: bool
    gib: float


@dataclass(frozen=True)
class Setup:
    """A model as its runs load it: with the rewards that it is evaluated by, some samples at a time."""

    model: Ingredient
    evaluated: tuple[Ingredient, ...]
    batches: Batches

    def rewards(self, trained: Ingredient) -> dict[str, Ingredient]:
        """All that a cell loads which is trained on this one, by name."""
        return {piece.name: piece for piece in (trained, *self.evaluated)}

    @property
    def config(self) -> ModelConfig:
        """The model's settings."""
        assert isinstance(self.model.config, ModelConfig)
        return self.model.config


CLASSES: dict[Use, str] = {"reward gradient": "gradients", "network gradient": "others"}  # as one calls them
NO_GRADIENT = "no gradient: choose ddpo, reinforce or zo, or rlr with --set rlr.fo=false"
UNFETCHED = "without any download, true shapes and random numbers: run … --weights random"
ABSENT = "<absent>"  # in what to type: stands for the names of those rewards that are not here
REWARDS = "<rewards>"  # stands for the names of the rewards that it is for
MICRO, HELD_OUT, SAVING, ALONE = (
    "--set train.micro_batch=1",
    "--set eval.batch=1",
    "--set model.gradient_checkpointing=true",
    "--set 'eval.rewards=[]'",
)
SMALLER = (
    (MICRO,),
    (HELD_OUT,),
    (MICRO, HELD_OUT),
    (SAVING,),
    (SAVING, MICRO),
    (SAVING, MICRO, HELD_OUT),
    (SAVING, MICRO, HELD_OUT, ALONE),
)  # cheapest first


class Answer(NamedTuple):
    """One cell of the table, and what to type about it (empty: nothing)."""

    text: str
    fix: str = ""


def set_up(model: Ingredient, layers: Sequence[Override] = ()) -> Setup:
    """How runs load a model; layers: what `--set` says. Raises BenchError."""
    how = evaluation(model.name, layers)
    evaluated = tuple(reward_ingredient(name, layers) for name in how.rewards)
    return Setup(model, evaluated, Batches(least(training(model.name, layers).micro_batch), least(how.batch)))


def room() -> Room:
    """Of this machine, now."""
    import torch

    if torch.cuda.is_available():
        free = [torch.cuda.mem_get_info(n)[0] for n in range(torch.cuda.device_count())]
        return Room(True, max(free) / GIB)
    return Room(False, available_memory() / GIB)


def classes(methods: Sequence[str], model: str) -> tuple[list[str], list[str]]:
    """(methods that need the reward's gradient, those that do not), as they ship for a model."""
    needing, others = list[str](), list[str]()
    steps = model_file(model)[1].model
    for name in methods:
        config = method_files.shipped_config(name, model)
        chain = ModelConfig.model_validate(steps).steps
        method = registry.load("method", name)(config, chain)
        (needing if method.needs_reward_grad else others).append(name)
    return needing, others


def answer(setup: Setup, reward: Ingredient, use: Use, here: Room, present: frozenset[str]) -> Answer:
    """Whether a method of that use can run. present: labels of the pieces whose files are all here."""
    cls = registry.load("reward", reward.name)
    if use == "reward gradient" and reward.config and not is_differentiable(cls, reward.config):
        return Answer("no gradient", NO_GRADIENT)
    if setup.config.frames is None and reward.config and media_of(cls, reward.config) == "video":
        return Answer("no: videos only")
    model, loaded = setup.model, setup.rewards(reward)
    for piece in (model, *loaded.values()):
        for problem in (look(need).problem for need in piece.needs):
            if problem is not None:
                return Answer("no", f"{piece.name}: {problem}")
    taken = _memory(setup, reward, use, here)
    size = "? GiB" if taken is None else str(taken)
    if taken is not None and taken.gib > here.gib:
        smaller = _smaller(setup, reward, use, here)
        return Answer(f"no: {size}", f"{model.name}, {CLASSES[use]} with {REWARDS}: {smaller}")
    lacking = [piece for piece in (model, *loaded.values()) if piece.label not in present]
    if lacking:
        flags = "" if lacking == [reward] else f"--model {model.name} "
        return Answer(f"fetch, {size}", f"python -m bench fetch {flags}--reward {ABSENT}")
    if modules := sorted({module for piece in loaded.values() for module in absent(piece.config)}):
        return Answer(f"install, {size}", f"{REWARDS}: install packages, see above ({', '.join(modules)})")
    slow = "" if here.gpu or setup.config.source in ("embedded:sd", "embedded:flow") else ", slow"
    return Answer(f"yes, {size}{slow}")


def _memory(setup: Setup, reward: Ingredient, use: Use, here: Room) -> Memory | None:
    rewards = {name: piece.config for name, piece in setup.rewards(reward).items()}
    return memory(setup.config, rewards, setup.batches, use, here.gpu, reward.name)


def _smaller(setup: Setup, reward: Ingredient, use: Use, here: Room) -> str:
    saving = setup.config.model_copy(update={"gradient_checkpointing": True})
    for typed in SMALLER:
        micro, held_out = setup.batches
        tried = replace(
            setup,
            model=replace(setup.model, config=saving) if SAVING in typed else setup.model,
            evaluated=() if ALONE in typed else setup.evaluated,
            batches=Batches(1 if MICRO in typed else micro, 1 if HELD_OUT in typed else held_out),
        )
        taken = _memory(tried, reward, use, here)
        if taken is not None and taken.exact and taken.gib <= here.gib:
            needed = (text for text in typed if text != SAVING or not setup.config.gradient_checkpointing)
            return " ".join(needed)
    return "wants a larger GPU" if here.gpu else "wants more memory, or a GPU"


class Row(NamedTuple):
    """A row of the table: a model, rewards that have the same answers, and these, one for each use."""

    model: str
    rewards: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """The table. fixes: what to type → the rewards that it is for. present: labels of what is here."""

    uses: tuple[Use, ...]
    rows: tuple[Row, ...]
    fixes: Mapping[str, Sequence[str]]
    present: frozenset[str]


def ask(setups: Sequence[Setup], rewards: Sequence[Ingredient], uses: Sequence[Use], here: Room) -> Answers:
    """Whether each model can be trained on each reward in each use; equal answers share a row."""
    involved = {p.label: p for setup in setups for p in (setup.model, *setup.evaluated, *rewards)}
    present = frozenset(label for label, piece in involved.items() if piece.complete)
    fixes, found = dict[str, list[str]](), list[Row]()
    for setup in setups:
        rows: dict[tuple[str, ...], list[str]] = {}
        for reward in rewards:
            answers = [answer(setup, reward, use, here, present) for use in uses]
            rows.setdefault(tuple(a.text for a in answers), []).append(reward.name)
            for fix in dict.fromkeys(a.fix for a in answers if a.fix):
                fixes.setdefault(fix, []).append(reward.name)
        found += [Row(setup.model.name, tuple(names), texts) for texts, names in rows.items()]
    return Answers(tuple(uses), tuple(found), fixes, present)


def show(
    console: Console, found: Answers, rewards: Sequence[Ingredient], here: Room, typed: str = ""
) -> None:
    """The table, then what to type about it.

    rewards: all that were asked about. typed: what the user said by --set and `fetch` has to be told, too.
    """
    plain(
        console,
        f"can run here ({here.gib:.1f} GiB of {'GPU' if here.gpu else 'main'} memory free)",
        "bold italic",
        wrap=True,
    )
    table = Table(box=None, padding=(0, 1, 0, 1))
    table.add_column("model", no_wrap=True, style="cyan")
    table.add_column("rewards", overflow="fold")
    for use in found.uses:
        table.add_column(CLASSES[use], no_wrap=True)
    for row in found.rows:
        table.add_row(row.model, ", ".join(row.rewards), *row.answers)
    console.print(table)
    for text in advice(found, rewards, typed):
        _suggest(console, text, "yellow")
    if any(ABSENT in fix for fix in found.fixes):
        _suggest(console, UNFETCHED, "dim")


def advice(found: Answers, rewards: Sequence[Ingredient], typed: str = "") -> list[str]:
    """What to type, or to know, about what cannot run; see `show`."""
    absent = [reward.name for reward in rewards if reward.label not in found.present]
    told: list[str] = []
    for fix, names in found.fixes.items():
        wanted = [name for name in names if name in absent] or names
        text = fix.replace(ABSENT, ALL if set(wanted) == set(reward_list()) else ",".join(wanted))
        told.append(text.replace(REWARDS, _those(fix, names, found.fixes)) + (typed if ABSENT in fix else ""))
    return told


def _those(fix: str, names: Sequence[str], fixes: Mapping[str, Sequence[str]]) -> str:
    """The rewards that a piece of advice is for; all, if there is no other of its kind."""
    alike = [other for other in fixes if other.startswith(fix.partition(REWARDS)[0])]
    return "any reward" if len(alike) == 1 and " with " in fix else ", ".join(names)


def _suggest(console: Console, text: str, style: str) -> None:
    """A command stays one line, so that it can be copied; all else is folded between words."""
    if text.startswith("python "):
        plain(console, f"  {text}", style)
    else:
        console.print(Padding(Text(text), (0, 0, 0, 2), expand=False), style=style)
