"""What a request still waits for, and the one command that fetches it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.experiment.model_files import model_file
from bench.experiment.request import Experiment
from bench.experiment.resolve import MISSING, Cell, resolve_all
from bench.experiment.settings import EvalConfig


def waits(cell: Cell) -> bool:
    """Whether a planned cell needs files that are not here."""
    return any(digest.startswith(MISSING) for digest in cell.config.digests.values())


def show(console: Console, experiment: Experiment, cells: Sequence[Cell]) -> None:
    """What has to be fetched first, and how."""
    if command := _fetch_command(experiment, cells):
        plain(console, f"Not on this machine yet; cells in brackets wait for it:\n  {command}", "yellow")
    digests = [cell.config.digests for cell in cells]
    writers = dict.fromkeys(d["dcot"].removeprefix(MISSING) for d in digests if _is_unwritten(d))
    for writer in writers:
        plain(
            console,
            f"Some prompts have no decomposition yet; the run itself asks {writer} (dcot.llm) for them.",
            "yellow",
        )


def _is_unwritten(digests: Mapping[str, str]) -> bool:
    return "dcot" in digests and digests["dcot"].startswith(MISSING)


def with_everything(experiment: Experiment, error: BenchError) -> BenchError:
    """The error, and what else the run would stop at: one command gets it all."""
    try:
        command = _fetch_command(experiment, resolve_all(experiment.parts, fetch=False))
    except BenchError:
        return error  # not of missing files
    return BenchError(f"{error}\nEverything that this run waits for:\n  {command}") if command else error


def _fetch_command(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """What to type to have what these cells wait for; empty if nothing."""
    wanted: dict[str, list[str]] = {"model": [], "reward": [], "prompts": []}
    for cell in cells:
        for what, digest in cell.config.digests.items():
            kind, _, name = what.partition(" ")
            if not digest.startswith(MISSING) or kind not in wanted:
                continue
            if kind == "model":
                source = digest.removeprefix(MISSING)
                name = cell.config.model.name if experiment.weights is None else source
            if " term " in name:  # of a sum: its terms are rewards of their own
                name = name.partition(" term ")[2].partition(" ")[2]
            wanted[kind].append(name.partition(" ")[0] or cell.config.prompts)
    flags = [f"--{kind} {','.join(dict.fromkeys(names))}" for kind, names in wanted.items() if names]
    if wanted["model"]:  # `fetch` brings the rewards that the model's own file has it evaluated by
        flags += _evaluation_of(cells)
    flags += [f"--set {shlex.quote(text)}" for text in _settings_of(experiment, wanted["reward"])]
    return f"python -m bench fetch {' '.join(flags)}" if any(wanted.values()) else ""


def _evaluation_of(cells: Sequence[Cell]) -> list[str]:
    """What tells `fetch` of other rewards to be evaluated by than those in the models' files."""
    names = dict.fromkeys(name for cell in cells for name in cell.config.eval.rewards)
    own = [EvalConfig.model_validate(model_file(cell.config.model.name)[1].eval) for cell in cells]
    if all(set(how.rewards) == set(names) for how in own):
        return []
    return [f"--set {shlex.quote('eval.rewards=[' + ','.join(names) + ']')}"]


def _settings_of(experiment: Experiment, rewards: Sequence[str]) -> list[str]:
    """What was typed about these rewards or the model, as `fetch` takes it."""
    found: list[str] = []
    for origin, tree, typed in experiment.layers:
        (section,) = tree if len(tree) == 1 else ("",)
        text = origin.removeprefix("--set ")
        trained = experiment.parts[0].reward
        if typed and section == "reward" and trained in rewards:
            found.append(f"{trained}.{text.partition('.')[2]}")
        elif typed and (section in rewards or text.startswith(("model.revision", "model.variant"))):
            found.append(text)
    return found
