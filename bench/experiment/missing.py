"""What an experiment still waits for, and the one command that fetches it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.experiment.model_files import evaluation
from bench.experiment.request import Experiment
from bench.experiment.resolve import Cell, resolve_all


def show(console: Console, experiment: Experiment, cells: Sequence[Cell]) -> None:
    """What has to be fetched first, and how."""
    if command := _fetch_command(experiment, cells):
        plain(console, f"Not on this machine yet; cells in brackets wait for it:\n  {command}", "yellow")
    writers = dict.fromkeys(one.source for cell in cells for one in cell.absent if one.kind == "dcot")
    for writer in writers:
        text = f"Some prompts have no decomposition yet; the run itself asks {writer} (dcot.llm) for them."
        plain(console, text, "yellow")


def with_everything(experiment: Experiment, error: BenchError) -> BenchError:
    """The error, and what else the run would stop at: one command gets it all."""
    try:
        command = _fetch_command(experiment, resolve_all(experiment.combinations, fetch=False))
    except BenchError:
        return error  # not of missing files
    return BenchError(f"{error}\nEverything that this run waits for:\n  {command}") if command else error


def _fetch_command(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """What to type to have what these cells wait for; empty if nothing."""
    wanted: dict[str, dict[str, None]] = {"model": {}, "reward": {}, "prompts": {}}
    for cell in cells:
        for one in cell.absent:
            if one.kind == "model":
                name = cell.config.model.name if experiment.weights is None else one.source
                wanted["model"][name] = None
            elif one.kind in wanted:
                wanted[one.kind][one.name] = None
    flags = [f"--{kind} {','.join(names)}" for kind, names in wanted.items() if names]
    if not flags:
        return ""
    if wanted["model"]:  # `fetch` brings the rewards that the model's own file has it evaluated by
        flags += _evaluation_of(cells)
    flags += [f"--set {shlex.quote(text)}" for text in _settings_of(experiment, [*wanted["reward"]])]
    return f"python -m bench fetch {' '.join(flags)}"


def _evaluation_of(cells: Sequence[Cell]) -> list[str]:
    """What tells `fetch` of other rewards to be evaluated by than those in the models' files."""
    names = dict.fromkeys(name for cell in cells for name in cell.config.eval.rewards)
    if all(set(evaluation(cell.config.model.name).rewards) == set(names) for cell in cells):
        return []
    return [f"--set {shlex.quote('eval.rewards=[' + ','.join(names) + ']')}"]


def _settings_of(experiment: Experiment, rewards: Sequence[str]) -> list[str]:
    """What was typed about these rewards or the model, as `fetch` takes it."""
    found: list[str] = []
    for origin, tree, typed in experiment.overrides:
        (section,) = tree if len(tree) == 1 else ("",)
        text = origin.removeprefix("--set ")
        trained = experiment.combinations[0].reward
        if typed and section == "reward" and trained in rewards:
            found.append(f"{trained}.{text.partition('.')[2]}")
        elif typed and (section in rewards or text.startswith(("model.revision", "model.variant"))):
            found.append(text)
    return found
