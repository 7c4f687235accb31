"""What `bench list` shows: no settings are read, and plugins are imported only to ask what they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.base import registry
from bench.base.console import plain
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import first_comment, profiles, shipped
from bench.data import prompts

KINDS = ("methods", "rewards", "prompts", "models", "experiments", "workloads", "profiles")
TITLES = {"prompts": "prompt sets", "profiles": "SLURM profiles"}
FETCHED = {"models": "model", "rewards": "reward", "prompts": "prompts"}  # kinds that have files, for `fetch`
HINT = (
    "bench list KIND --long says what each is, bench describe NAME shows settings. A model may also be "
    "path:DIRECTORY or hub:ORG/NAME, a reward a sum (hpsv2:1,aes:0.5) or python:module.function, prompts a "
    "file."
)


@dataclass(frozen=True)
class Item:
    """One thing that can be named. summary: what it is; None: nobody says.

    gradient: of a method, whether it needs the gradient of the reward; of a reward, whether it has one; None:
    unknown, or not asked for. base: of a preset, its method. plugin: the package that it comes from.
    problem: why it cannot be used; None if nothing is known to be wrong.
    """

    kind: str
    name: str
    summary: str | None
    gradient: bool | None = None
    base: str | None = None
    plugin: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What to list: kinds and parts of names that were typed; with or without a gradient; with files here."""

    words: Sequence[str] = ()
    gradient: bool | None = None
    here: bool = False


def items() -> list[Item]:
    """Everything, in the order of kinds."""
    found: list[Item] = []
    for kind, group in (("methods", "method"), ("rewards", "reward")):
        for name, entry in registry.entries(group).items():
            item = Item(kind, name, entry.summary(), None, entry.base, entry.plugin, entry.problem)
            found.append(item)
    found += [Item("prompts", name, summary) for name, summary in prompts.BUILT_IN.items()]
    for kind in ("models", "experiments", "workloads"):
        found += [Item(kind, name, first_comment(path)) for name, path in shipped(kind).items()]
    return [*found, *(Item("profiles", name, first_comment(path)) for name, path in profiles().items())]


def chosen(wanted: Wanted) -> list[Item]:
    """Those that are wanted. Raises BenchError for a word that is neither a kind nor in any name."""
    found = items()
    words = [word.lower() for word in wanted.words]
    kinds = [word for word in words if word in KINDS]
    texts = [word for word in words if word not in KINDS]
    for text in texts:
        if not any(text in item.name.lower() for item in found):
            known = [*KINDS, *(item.name for item in found)]
            raise BenchError(
                f"'{text}' is no kind, and in no name.{did_you_mean(text, known)} Kinds: {', '.join(KINDS)}"
            )
    found = [item for item in found if not kinds or item.kind in kinds]
    found = [item for item in found if not texts or any(text in item.name.lower() for text in texts)]
    if wanted.gradient is not None:
        found = [item for item in with_gradient(found) if item.gradient is wanted.gradient]
    return [item for item in found if not wanted.here or _here(item)]


def with_gradient(found: Iterable[Item]) -> list[Item]:
    """The same, and what each method needs and each reward has. Imports them, but no torch."""
    return [replace(item, gradient=_gradient(item)) for item in found]


def _gradient(item: Item) -> bool | None:
    """None also for what cannot be used, and for rewards that are nothing without settings of yours."""
    from pydantic import ValidationError

    from bench.engine.reward import is_differentiable
    from bench.experiment.method_files import shipped_config
    from bench.models.config import ModelConfig

    try:
        if item.kind == "methods":
            config = shipped_config(item.name, "")
            steps = ModelConfig.model_fields["steps"].default
            return registry.load("method", item.name)(config, steps).needs_reward_grad
        if item.kind == "rewards":
            cls = registry.load("reward", item.name)
            return is_differentiable(cls, cls.Config())
    except (BenchError, ValidationError):
        return None
    return None


def _here(item: Item) -> bool:
    """Whether its files are on this machine; False for what has none, such as a method."""
    from bench.experiment.ingredients import model_ingredient, prompts_ingredient, reward_ingredient

    makers = {
        "models": lambda name: model_ingredient(name, ()),
        "rewards": lambda name: reward_ingredient(name, ()),
        "prompts": prompts_ingredient,
    }
    try:
        return item.kind in makers and makers[item.kind](item.name).complete
    except BenchError:
        return False


def show(console: Console, found: Sequence[Item], long: bool) -> None:
    """Names in columns, or with `long` a line for each; by kind."""
    for kind in KINDS:
        same = [item for item in found if item.kind == kind]
        if not same:
            continue
        plain(console, TITLES.get(kind, kind), "bold")
        if long:
            _long(console, same)
        else:
            names = [Text(f"  {item.name}", "cyan") for item in same]
            console.print(Columns(names, column_first=True, padding=(0, 1)))
            for item in same:
                if item.problem is not None:
                    plain(console, f"  {item.name} {item.summary}", "yellow", wrap=True)
        console.print()
    if found:
        plain(console, HINT, "dim", wrap=True)
    else:
        plain(console, "nothing is like that")


def _long(console: Console, found: Sequence[Item]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(min_width=14, no_wrap=True, style="cyan")
    table.add_column()
    for item in found:
        table.add_row(item.name, Text("(no description)" if item.summary is None else item.summary))
    console.print(table)
