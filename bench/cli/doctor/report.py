"""All sections, in the order in which one asks: does it run, with what, and what else is missing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding

from bench.base import registry, units
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.cli.doctor import files, machine, packages, runnable
from bench.cli.doctor.lines import Finding, Mark, examine, show
from bench.data import prompts
from bench.experiment.ingredients import (
    ALL,
    Ingredient,
    model_ingredient,
    named,
    prompts_ingredient,
    reward_ingredient,
    reward_list,
)
from bench.experiment.overrides import typed
from bench.models.sizes import Use

RESULTS = Path("results")
DEMO_MODEL = "tiny"


def run(
    console: Console, models: str | None, rewards: str | None, methods: str | None, settings: Sequence[str]
) -> int:
    """Print everything. Returns 0 if the demo can run here, else 1. Raises BenchError for an unknown name."""
    chosen = None if methods in (None, ALL) else units.names(methods)
    for name in chosen or ():
        registry.find("method", name)
    found = [
        _section(console, "machine", _machine()),
        _section(console, "packages", examine("packages", packages.core)),
        _section(
            console,
            "scorers (packages that some rewards and VBench need)",
            examine("scorers", packages.scorers),
        ),
        _section(console, "hub and caches", examine("variables", machine.variables)),
    ]
    if faulty := list(_faulty()):
        found.append(_section(console, "files that cannot be used", faulty))
    ingredients, problems = _ingredients(models, rewards, settings)
    for kind, title in (("model", "models"), ("reward", "rewards"), ("prompts", "prompt sets")):
        of_kind = [one for one in ingredients if one.kind == kind]
        lines = [line for one in of_kind for line in examine(one.name, lambda o=one: files.lines(o))]
        found.append(_section(console, title, [*lines, *problems.get(kind, ())]))
    if rewards not in (None, ALL):
        wanted = reward_list(rewards)
        ingredients = [one for one in ingredients if one.kind != "reward" or one.name in wanted]
    table = examine("table", lambda: _table(console, ingredients, chosen, settings))
    if table:
        found.append(_section(console, "can run here", table))
    return _conclude(console, [line for section in found for line in section])


def _section(console: Console, title: str, lines: list[Finding]) -> list[Finding]:
    show(console, title, lines)
    return lines


def _machine() -> list[Finding]:
    parts = (
        ("Python", machine.python),
        ("torch", machine.torch_and_gpus),
        ("CPU", machine.processor),
        ("memory", machine.memory),
        ("disk", lambda: machine.disks(RESULTS)),
    )
    return [line for name, look in parts for line in examine(name, look)]


def _ingredients(
    models: str | None, rewards: str | None, settings: Sequence[str]
) -> tuple[list[Ingredient], dict[str, list[Finding]]]:
    """What is asked about, without names everything that ships; and by kind what cannot be described.

    A reward alone is looked at on the demo's model.
    """
    if models is not None or rewards not in (None, ALL):
        try:
            return named(models or DEMO_MODEL, rewards, None, settings), {}
        except BenchError:  # a name that is not known
            raise
        except Exception as error:  # whatever a broken package raises
            return [], {"reward": [Finding("rewards", f"{type(error).__name__}: {error}", Mark.NOTE)]}
    overrides = typed(settings)
    makers: dict[str, tuple[Sequence[str], Callable[[str], Ingredient]]] = {
        "model": (list(shipped("models")), lambda name: model_ingredient(name, overrides)),
        "reward": (reward_list(), lambda name: reward_ingredient(name, overrides)),
        "prompts": (list(prompts.BUILT_IN), prompts_ingredient),
    }
    found, problems = list[Ingredient](), dict[str, list[Finding]]()
    for kind, (names, maker) in makers.items():
        for name in names:
            try:
                found.append(maker(name))
            except Exception as error:  # whatever a broken package or plugin raises
                said = str(error).partition("\n")[0] or type(error).__name__
                problems.setdefault(kind, []).append(Finding(name, said, Mark.NOTE))
    return found, problems


def _table(
    console: Console, ingredients: Sequence[Ingredient], chosen: list[str] | None, settings: Sequence[str]
) -> list[Finding]:
    """Print the table. No lines, unless it cannot be made."""
    models = [one for one in ingredients if one.kind == "model"]
    rewards = [one for one in ingredients if one.kind == "reward"]
    entries = registry.entries("method").items()
    classes = [name for name, entry in entries if entry.base is None and entry.problem is None]
    needing, others = runnable.classes(chosen or classes, models[0].name if chosen else DEMO_MODEL)
    members: dict[Use, list[str]] = {"reward gradient": needing, "network gradient": others}
    uses: list[Use] = [use for use, names in members.items() if names]
    overrides = typed(settings)
    setups = [runnable.set_up(model, overrides) for model in models]
    again = "".join(f" --set {shlex.quote(text)}" for text in settings if not text.startswith("train."))
    runnable.show(console, setups, rewards, uses, runnable.room(), again)
    for use in uses:
        line = Padding(f"{runnable.CLASSES[use]}: {', '.join(members[use])}", (0, 0, 0, 2), expand=False)
        console.print(line, style="dim", highlight=False)
    console.print()
    return []


def _faulty() -> Iterator[Finding]:
    """Files of methods, rewards and model families that cannot be used."""
    for group in registry.FOLDERS:
        for name, entry in registry.own(group).items():
            if entry.problem is not None:
                yield Finding(f"{group} {name}", entry.problem, Mark.NOTE)


def _conclude(console: Console, lines: Sequence[Finding]) -> int:
    bad = [line for line in lines if line.mark is Mark.BAD]
    if not bad:
        console.print("The demo can run here:  make demo   (or: python -m bench run)", style="green")
        return 0
    console.print("The demo cannot run here:", style="bold red")
    for line in bad:
        plain(console, f"  {line.name}: {line.text}", "red", wrap=True)
    return 1
