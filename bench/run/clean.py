"""What can go of a results directory: failed cells, superseded cells, and old checkpoints of finished cells.

A cell is superseded when the directory's last request (experiment.yaml) does not name it, but one of the same
method, model, prompts, reward and seed that is done: its settings, or what the program makes of them, were
changed since. A base model's cell is, when no cell that stays is measured against it. What somebody works on
stays, and so do the trials of tuning, whose endings are its results. No torch here.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.base.errors import BenchError
from bench.base.layers import read_yaml
from bench.experiment.identity import cell_id
from bench.experiment.search import FIRST_SEED
from bench.experiment.settings import CellConfig
from bench.run import claims
from bench.run.checkpoints import Checkpoints
from bench.run.slurm.queue import Queue
from bench.run.slurm.settle import settle
from bench.run.store import CellDir, CellInUse, ResultsDir, Status, WorkState
from bench.run.work import CellWork, kind_of


class Kind(StrEnum):
    """Why something can go."""

    FAILED = "failed"
    SUPERSEDED = "superseded"
    CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Removable:
    """What can go of one cell. files: those; none: all of the cell. why: in a few words, may be empty.

    status: the cell's when it was looked at.
    """

    cell: CellDir
    kind: Kind
    files: tuple[Path, ...]
    why: str
    bytes: int
    status: Status


@dataclass(frozen=True)
class Findings:
    """What can go of a results directory, by kind and in the order of cells; and the cells in use."""

    removable: tuple[Removable, ...]
    in_use: tuple[CellDir, ...]


def find(results: ResultsDir) -> Findings:
    """Look at every cell. Raises BenchError where there are none."""
    cells = results.cells()
    if not cells:
        raise BenchError(f"{results.path}: no cells here; name the directory that run or submit wrote to")
    queue, configs = settle(results, cells), dict[str, CellConfig]()
    for cell in cells:
        with suppress(BenchError):  # damaged, or of other work: not looked at
            if kind_of(cell) is CellWork:
                configs[cell.id] = cell.config()
    in_use = [cell for cell in cells if cell.id in configs and _held(cell, queue)]
    free = [cell for cell in cells if cell.id in configs and cell not in in_use]
    gone, found = _superseded(results, configs, {cell.id for cell in in_use}), list[Removable]()
    for cell in free:
        one = _of_cell(cell, configs[cell.id], cell.id in gone)
        found += [] if one is None else [one]
    return Findings(tuple(sorted(found, key=lambda one: list(Kind).index(one.kind))), tuple(in_use))


def _held(cell: CellDir, queue: Queue) -> bool:
    """Whether somebody works on a cell, or is going to. A claim that cannot be read counts as one."""
    try:
        held = claims.read(cell)
    except BenchError:
        return True
    return held is not None and queue.alive(cell, *held)


def _of_cell(cell: CellDir, config: CellConfig, superseded: bool) -> Removable | None:
    status, trial = cell.status(), config.training is not None and config.training.seed >= FIRST_SEED
    if status.state is WorkState.FAILED and not trial:
        message = (status.message or "").partition("\n")[0]
        why = f"at step {status.step}: {message}"
        return Removable(cell, Kind.FAILED, (), why, _size(cell.path), status)
    if superseded and not trial:
        why = f"{status.state} at step {status.step}"
        return Removable(cell, Kind.SUPERSEDED, (), why, _size(cell.path), status)
    old = Checkpoints(cell.path / "checkpoint").old() if status.state is WorkState.DONE else []
    if not old:
        return None
    return Removable(cell, Kind.CHECKPOINTS, tuple(old), "", sum(file.stat().st_size for file in old), status)


def _superseded(
    results: ResultsDir, configs: Mapping[str, CellConfig], in_use: Collection[str]
) -> frozenset[str]:
    file = results.path / "experiment.yaml"
    named = set(read_yaml(file).get("cells") or ()) if file.is_file() else set(configs)
    done = [id for id in named & set(configs) if results.cell(id).status().state is WorkState.DONE]
    replaced = {_what(configs[id]) for id in done}
    old = {
        id for id, config in configs.items() if id not in named | set(in_use) and _what(config) in replaced
    }
    trained = [config for id, config in configs.items() if id not in old and config.training is not None]
    bases = {cell_id(config.model_copy(update={"training": None})) for config in trained}
    return frozenset(old - bases)


def _what(config: CellConfig) -> tuple[object, ...]:
    """What a cell is, whatever its settings."""
    training = config.training
    trained = () if training is None else (training.reward.name, training.seed)
    return config.label, config.model.name, config.prompts, *trained


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def remove(found: Sequence[Removable]) -> list[Removable]:
    """Remove it all; returns what somebody has worked on since it was found, or does now, and that stays."""
    left, queue, mine = list[Removable](), Queue(), claims.of_this_process()
    for one in found:
        try:
            if claims.take(one.cell, mine, queue.alive) is not None:
                left.append(one)
                continue
            with one.cell.locked(patience=0.0):
                if one.cell.status() != one.status:  # a run came and went, perhaps while somebody was asked
                    claims.release(one.cell, mine.token)
                    left.append(one)
                elif one.files:
                    for file in one.files:
                        file.unlink(missing_ok=True)
                    claims.release(one.cell, mine.token)
                else:
                    (one.cell.path / "config.yaml").unlink()  # so that what is left of it is no cell
                    shutil.rmtree(one.cell.path)
        except CellInUse:
            claims.release(one.cell, mine.token)
            left.append(one)
    return left
