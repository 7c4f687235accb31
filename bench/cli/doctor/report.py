"""All sections, in the order in which one asks: does it run, with what, and what else is missing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding

from bench.base import registry, units
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.cli.as_json import tell
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


@dataclass
class Report:
    """What was found so far: titles with their lines, and the table of what can run. `show` is told of each
    section when it has been looked at."""

    show: Callable[[str, list[Finding]], None]
    sections: list[tuple[str, list[Finding]]] = field(default_factory=list)

    def add(self, title: str, lines: list[Finding]) -> None:
        """One section more."""
        self.sections.append((title, lines))
        self.show(title, lines)

    def bad(self) -> list[Finding]:
        """What keeps the demo from running."""
        return [line for _, lines in self.sections for line in lines if line.mark is Mark.BAD]


def run(
    console: Console,
    models: str | None,
    rewards: str | None,
    methods: str | None,
    settings: Sequence[str],
    as_json: bool = False,
) -> int:
    """Print everything. Returns 0 if the demo can run here, else 1. Raises BenchError for an unknown name.

    as_json: one document, when all has been looked at.
    """
    chosen = None if methods in (None, ALL) else units.names(methods)
    for name in chosen or ():
        registry.find("method", name)
    report = Report(lambda title, lines: None if as_json else show(console, title, lines))
    report.add("machine", _machine())
    report.add("packages", examine("packages", packages.core))
    report.add("scorers (packages that some rewards and VBench need)", examine("scorers", packages.scorers))
    report.add("hub and caches", examine("variables", machine.variables))
    if faulty := list(_faulty()):
        report.add("files that cannot be used", faulty)
    ingredients, problems = _ingredients(models, rewards, settings)
    for kind, title in (("model", "models"), ("reward", "rewards"), ("prompts", "prompt sets")):
        of_kind = [one for one in ingredients if one.kind == kind]
        lines = [line for one in of_kind for line in examine(one.name, lambda o=one: files.lines(o))]
        report.add(title, [*lines, *problems.get(kind, ())])
    if rewards not in (None, ALL):
        wanted = reward_list(rewards)
        ingredients = [one for one in ingredients if one.kind != "reward" or one.name in wanted]
    table: dict[str, Any] = {}
    look = Console(quiet=True) if as_json else console
    if failed := examine("table", lambda: _table(look, ingredients, chosen, settings, table)):
        report.add("can run here", failed)
    if as_json:
        bad = report.bad()
        tell({"demo": not bad, "sections": [_section(*one) for one in report.sections], "can_run": table})
        return int(bool(bad))
    return _conclude(console, report.bad())


def _section(title: str, lines: Sequence[Finding]) -> dict[str, Any]:
    found = [{"name": line.name, "text": line.text, "mark": line.mark.name.lower()} for line in lines]
    return {"title": title, "findings": found}


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
    console: Console,
    ingredients: Sequence[Ingredient],
    chosen: list[str] | None,
    settings: Sequence[str],
    into: dict[str, Any],
) -> list[Finding]:
    """Print the table, and put it into an object. No lines, unless it cannot be made."""
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
    here = runnable.room()
    found = runnable.ask(setups, rewards, uses, here)
    runnable.show(console, found, rewards, here, again)
    into |= {
        "memory": {"gib": here.gib, "gpu": here.gpu},
        "methods": {runnable.CLASSES[use]: members[use] for use in uses},
        "rows": [
            {
                "model": row.model,
                "rewards": row.rewards,
                **dict(zip((runnable.CLASSES[use] for use in uses), row.answers, strict=True)),
            }
            for row in found.rows
        ],
        "advice": runnable.advice(found, rewards, again),
    }
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


def _conclude(console: Console, bad: Sequence[Finding]) -> int:
    if not bad:
        console.print("The demo can run here:  make demo   (or: python -m bench run)", style="green")
        return 0
    console.print("The demo cannot run here:", style="bold red")
    for line in bad:
        plain(console, f"  {line.name}: {line.text}", "red", wrap=True)
    return 1
