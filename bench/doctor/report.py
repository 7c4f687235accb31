"""All sections, in the order in which one asks: does it run, with what, and what else is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import prompts, registry
from bench.config import parse_setting, shipped
from bench.doctor import machine, packages, runnable, weights
from bench.doctor.lines import Line, Mark, examine, show
from bench.parts import Layer
from bench.pieces import ALL, Piece, asked, model_piece, prompts_piece, reward_list, reward_piece, split
from bench.sizes import Use

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
    pieces, problems = _pieces(models, rewards, settings)
    for kind, title in (("model", "models"), ("reward", "rewards"), ("prompts", "prompt sets")):
        chosen = [piece for piece in pieces if piece.kind == kind]
        lines = [line for piece in chosen for line in examine(piece.name, lambda p=piece: weights.lines(p))]
        found.append(_section(console, title, [*lines, *problems.get(kind, ())]))
    table = examine("table", lambda: _table(console, pieces, methods))
    found.append([line for line in table if line.text])
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
        return asked(models or DEMO_MODEL, rewards, None, settings), {}
    layers = [Layer(*parse_setting(text)) for text in settings]
    makers: dict[str, tuple[Sequence[str], weights.Maker]] = {
        "model": (list(shipped("models")), lambda name: model_piece(name, layers)),
        "reward": (reward_list(), lambda name: reward_piece(name, layers)),
        "prompts": (list(prompts.BUILT_IN), prompts_piece),
    }
    pieces, problems = list[Piece](), dict[str, list[Line]]()
    for kind, (names, maker) in makers.items():
        made, problems[kind] = weights.make(names, maker)
        pieces += made
    return pieces, problems


def _table(console: Console, pieces: Sequence[Piece], methods: str | None) -> list[Line]:
    models = [piece for piece in pieces if piece.kind == "model"]
    rewards = [piece for piece in pieces if piece.kind == "reward"]
    chosen = split(methods) if methods not in (None, ALL) else _method_classes()
    needing, others = runnable.classes(chosen, models[0].name if methods else DEMO_MODEL)
    uses: dict[Use, str] = {}
    if needing:
        uses["reward gradient"] = "gradients"
    if others:
        uses["network gradient"] = "others"
    runnable.show(console, models, rewards, uses, runnable.room())
    for title, names in (("gradients", needing), ("others", others)):
        if names:
            console.print(f"  {title}: {', '.join(names)}", style="dim", highlight=False)
    console.print()
    return []


def _method_classes() -> list[str]:
    """Methods that are classes, not presets."""
    return [name for name, entry in registry.entries("method").items() if entry.base is None]


def _conclude(console: Console, lines: Sequence[Line]) -> int:
    bad = [line for line in lines if line.mark is Mark.BAD]
    if not bad:
        console.print("The demo can run here:  make demo   (or: python -m bench run)", style="green")
        return 0
    console.print("The demo cannot run here:", style="bold red")
    for line in bad:
        console.print(f"  {line.name}: {line.text}", style="red", markup=False, highlight=False)
    return 1
