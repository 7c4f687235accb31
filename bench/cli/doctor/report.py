"""All sections, in the order in which one asks: does it run, with what, and what else is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding

from bench.base import registry
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.layers import parse_setting, shipped
from bench.cli.doctor import files, machine, packages, runnable
from bench.cli.doctor.lines import Line, Mark, examine, show
from bench.data import prompts
from bench.experiment.ingredients import (
    ALL,
    Piece,
    asked,
    model_piece,
    prompts_piece,
    reward_list,
    reward_piece,
    rewards_of,
    split,
)
from bench.experiment.model_files import Layer, model_file
from bench.models.sizes import Use

RESULTS = Path("results")
DEMO_MODEL = "tiny"


def run(
    console: Console, models: str | None, rewards: str | None, methods: str | None, settings: Sequence[str]
) -> int:
    """Print everything. Returns 0 if the demo can run here, else 1. Raises BenchError for an unknown name."""
    for name in split(None if methods == ALL else methods):
        registry.find("method", name)
    found = [
        _section(console, "machine", _machine()),
        _section(console, "packages", examine("packages", packages.core)),
        _section(console, "scorers (packages that some rewards and VBench need)", _scorers()),
        _section(console, "hub and caches", _places()),
    ]
    if faulty := list(_faulty()):
        found.append(_section(console, "files that cannot be used", faulty))
    pieces, problems = _pieces(models, rewards, settings)
    for kind, title in (("model", "models"), ("reward", "rewards"), ("prompts", "prompt sets")):
        chosen = [piece for piece in pieces if piece.kind == kind]
        lines = [line for piece in chosen for line in examine(piece.name, lambda p=piece: files.lines(p))]
        found.append(_section(console, title, [*lines, *problems.get(kind, ())]))
    named = None if rewards in (None, ALL) else rewards_of(rewards)
    shown = [p for p in pieces if p.kind != "reward" or named is None or p.name in named]
    table = examine("table", lambda: _table(console, shown, methods, settings))
    if table:
        found.append(_section(console, "can run here", table))
    return _conclude(console, [line for part in found for line in part])


def _section(console: Console, title: str, lines: list[Line]) -> list[Line]:
    show(console, title, lines)
    return lines


def _machine() -> list[Line]:
    parts = (
        ("Python", machine.python),
        ("torch", machine.torch_and_gpus),
        ("CPU", machine.processor),
        ("memory", machine.memory),
        ("disk", lambda: machine.disks(RESULTS)),
    )
    return [line for name, look in parts for line in examine(name, look)]


def _scorers() -> list[Line]:
    return examine("scorers", packages.scorers)


def _places() -> list[Line]:
    return examine("variables", machine.variables)


def _pieces(
    models: str | None, rewards: str | None, settings: Sequence[str]
) -> tuple[list[Piece], dict[str, list[Line]]]:
    """What is asked about, without names everything that ships; and by kind what cannot be described."""
    if models is not None or rewards not in (None, ALL):
        try:
            return _asked(models, rewards, settings), {}
        except BenchError:  # a name that is not known
            raise
        except Exception as error:  # whatever a broken package raises
            return [], {"reward": [Line("rewards", f"{type(error).__name__}: {error}", Mark.NOTE)]}
    layers = [Layer(*parse_setting(text)) for text in settings]
    makers: dict[str, tuple[Sequence[str], files.Maker]] = {
        "model": (list(shipped("models")), lambda name: model_piece(name, layers)),
        "reward": (reward_list(), lambda name: reward_piece(name, layers)),
        "prompts": (list(prompts.BUILT_IN), prompts_piece),
    }
    pieces, problems = list[Piece](), dict[str, list[Line]]()
    for kind, (names, maker) in makers.items():
        made, problems[kind] = files.make(names, maker)
        pieces += made
    return pieces, problems


def _asked(models: str | None, rewards: str | None, settings: Sequence[str]) -> list[Piece]:
    """What is named; a reward alone is looked at on the demo's model."""
    if models is not None:
        return asked(models, rewards, None, settings)
    layers = [Layer(*parse_setting(text)) for text in settings]
    demo, prompt_set = model_piece(DEMO_MODEL, layers), prompts_piece(model_file(DEMO_MODEL)[1].prompts)
    return [demo, *asked(None, rewards, None, settings), prompt_set]


def _table(
    console: Console, pieces: Sequence[Piece], methods: str | None, settings: Sequence[str]
) -> list[Line]:
    """Print the table. No lines, unless it cannot be made."""
    models = [piece for piece in pieces if piece.kind == "model"]
    rewards = [piece for piece in pieces if piece.kind == "reward"]
    chosen = split(methods) if methods not in (None, ALL) else _method_classes()
    needing, others = runnable.classes(chosen, models[0].name if methods else DEMO_MODEL)
    members: dict[Use, list[str]] = {"reward gradient": needing, "network gradient": others}
    uses: list[Use] = [use for use, names in members.items() if names]
    layers = [Layer(*parse_setting(text)) for text in settings]
    setups = [runnable.set_up(model, layers) for model in models]
    typed = "".join(f" --set {shlex.quote(text)}" for text in settings if not text.startswith("train."))
    runnable.show(console, setups, rewards, uses, runnable.room(), typed)
    for use in uses:
        line = Padding(f"{runnable.CLASSES[use]}: {', '.join(members[use])}", (0, 0, 0, 2), expand=False)
        console.print(line, style="dim", highlight=False)
    console.print()
    return []


def _method_classes() -> list[str]:
    """Methods that are classes, not presets, and whose files can be used."""
    found = registry.entries("method").items()
    return [name for name, entry in found if entry.base is None and entry.problem is None]


def _faulty() -> Iterator[Line]:
    """Files of methods, rewards and model families that cannot be used."""
    for group in registry.FOLDERS:
        for name, entry in registry.own(group).items():
            if entry.problem is not None:
                yield Line(f"{group} {name}", entry.problem, Mark.NOTE)


def _conclude(console: Console, lines: Sequence[Line]) -> int:
    bad = [line for line in lines if line.mark is Mark.BAD]
    if not bad:
        console.print("The demo can run here:  make demo   (or: python -m bench run)", style="green")
        return 0
    console.print("The demo cannot run here:", style="bold red")
    for line in bad:
        plain(console, f"  {line.name}: {line.text}", "red", wrap=True)
    return 1
