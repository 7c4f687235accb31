"""`bench verify DIR`: which files of a results directory are damaged, and back to where work can continue.

A repair never invents what is lost. It removes what cannot be trusted, so that the command that wrote the
directory makes it again: from the newest checkpoint before the damage, or from the beginning where there is
none. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from safetensors import SafetensorError, safe_open

from bench.base.console import note, plain
from bench.base.errors import BenchError, Damaged
from bench.base.files import Record, read_json, read_rows, write_rows
from bench.base.filmstrip import broken_picture
from bench.base.layers import read_yaml
from bench.experiment.settings import CellConfig
from bench.run import claims, features
from bench.run.checkpoints import Checkpoints
from bench.run.evaluations import first_incomplete
from bench.run.store import CellDir, CellInUse, WorkDir, WorkState
from bench.run.work import CellWork, kind_of

LOGS = "*.jsonl"
ADDED = "evaluations/*.jsonl"


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written there. remedy: what `repair` does, in words."""

    file: Path
    what: str
    remedy: str
    repair: Callable[[], None]


def verify(console: Console, results: Path, repair: bool) -> int:
    """List the damage, and repair it if asked to. Returns the exit code: 1 if damage is left.

    Raises BenchError if there is nothing that could be examined.
    """
    places = _work_in(results)
    if not places:
        raise BenchError(f"{results}: neither cells nor gradient profiles there: name a results directory")
    request, count, left = results / "experiment.yaml", 0, 0
    for damage in _unreadable(request, read_yaml, "removed; the next run writes it again"):
        count, left = count + 1, left + _treat(console, damage, repair)
    for n, place in enumerate(places, start=1):
        note(console, f"{n} of {len(places)}: {place.id}", "dim")
        try:
            here, kept = _verify_one(console, place, repair)
        except CellInUse as error:
            plain(console, f"{error}: not repaired; end that run first", "yellow")
            here, kept = 1, 1
        count, left = count + here, left + kept
    plain(console, f"{len(places)} directories examined: {_counted(count, left, results)}")
    return int(left > 0)


def _counted(count: int, left: int, results: Path) -> str:
    if count == 0:
        return "nothing is damaged"
    if left == 0:
        return f"{count} files were damaged and are repaired. Give the command that wrote them again."
    return f"{left} files are damaged. Repair them with: python -m bench verify {results} --repair"


def _verify_one(console: Console, place: WorkDir, repair: bool) -> tuple[int, int]:
    """How many files were damaged, and how many still are. Raises CellInUse where another process writes."""
    if not repair:
        found = list(examine(place))
        return len(found), sum(_treat(console, damage, False) for damage in found)
    count, left = 0, 0
    if next(examine(place), None) is None:  # whole directories are not even locked
        return 0, 0
    with place.locked(patience=0.0):
        while (damage := next(examine(place), None)) is not None:  # a repair may take other damage with it
            count, left = count + 1, left + _treat(console, damage, True)
    return count, left


def _treat(console: Console, damage: Damage, repair: bool) -> bool:
    """Tell of damage, and repair it if asked to; whether it is still there."""
    if repair:
        damage.repair()
    plain(
        console, f"{damage.file}: {damage.what}\n  {'done' if repair else 'repair'}: {damage.remedy}", "red"
    )
    return not repair


def _work_in(results: Path) -> list[WorkDir]:
    """Every directory of work below a results directory, also those without a config.yaml."""
    cells = [CellDir(path) for path in sorted((results / "cells").glob("*")) if path.is_dir()]
    probes = [WorkDir(path) for path in sorted((results / "gradients").glob("*")) if path.is_dir()]
    return [*cells, *probes]


def examine(place: WorkDir) -> Iterator[Damage]:
    """The damaged files of one directory of work, in the order in which they are repaired."""
    path, restart = place.path, "set aside; the next run writes it again and continues"
    status = place.status()
    if status.state is WorkState.DAMAGED:
        what = (status.message or "").removeprefix(f"{path / 'status.json'}: damaged: ").partition(". `")[0]
        file = path / "status.json"
        yield Damage(file, what, "removed; the next run continues from the newest checkpoint", file.unlink)
    yield from _unreadable(path / claims.FILE, lambda _: claims.read(place), "removed; nobody claims it")
    for name in ("env.json", "job.json"):
        yield from _unreadable(path / name, read_json, "removed; the next process writes it again")
    yield from _checkpoints(path / "checkpoint")
    config = path / "config.yaml"
    cell = CellDir(path) if isinstance(place, CellDir) and config.is_file() else None
    try:
        settings = cell.config() if cell is not None and kind_of(cell) is CellWork else None
        read_yaml(config) if config.is_file() else {}
    except BenchError as error:
        yield Damage(config, str(error), restart, partial(_set_aside, place))
        return
    if cell is not None and settings is not None:
        yield from _cell(cell, settings)
    yield from _logs(place)


def _unreadable(file: Path, read: Callable[[Path], object], remedy: str) -> Iterator[Damage]:
    try:
        if file.exists():
            read(file)
    except BenchError as error:
        yield Damage(file, _reason(file, error), remedy, file.unlink)


def _reason(file: Path, error: BenchError) -> str:
    return str(error).removeprefix(f"{file}").lstrip(": ").removeprefix("damaged: ").partition(". `python")[0]


def _checkpoints(folder: Path) -> Iterator[Damage]:
    for file in Checkpoints(folder).damaged():
        remedy = "removed; the work continues from the checkpoint before it, else from its beginning"
        yield Damage(file, "not the contents that its name is the digest of", remedy, file.unlink)


def _logs(place: WorkDir) -> Iterator[Damage]:
    """Logs that nothing has to be made again for: what cannot be read is cut out of them."""
    for file in (*sorted(place.path.glob(LOGS)), *sorted(place.path.glob(ADDED))):
        rows, problem = _readable(file)
        if problem is not None:
            yield Damage(file, problem, "its unreadable lines are removed", partial(write_rows, file, rows))


def _readable(file: Path) -> tuple[list[Record], str | None]:
    """The rows before the first line that cannot be read, and what is wrong with the log, if anything is."""
    try:
        rows = read_rows(file)
    except Damaged as error:
        number, _, what = str(error).removeprefix(f"{file}:").partition(": damaged: ")
        return read_rows(file, int(number) - 1), f"line {number}: {what.partition('. `python')[0]}"
    data = file.read_bytes() if file.exists() else b""
    return rows, "its last line is incomplete" if data and not data.endswith(b"\n") else None


def _cell(cell: CellDir, config: CellConfig) -> Iterator[Damage]:
    """What a cell measured and made: a run has to make it again."""
    status, newest = cell.status(), Checkpoints(cell.path / "checkpoint").newest()
    reached = max(newest, status.step if status.state is WorkState.DONE else -1)
    if config.trains:
        rows, problem = _readable(cell.metrics)
        lost = next((n for n, row in enumerate(rows, start=1) if row.get("step") != n), len(rows) + 1)
        if lost <= reached:
            what = problem or "a line is missing"
            yield _again(cell, cell.metrics, f"{what}, at step {lost}", lost, lost)
    rows, problem = _readable(cell.evaluations)
    lost = first_incomplete(rows, config, reached, status.state is WorkState.DONE)
    if lost is None and problem is not None and reached >= 0:  # of which step the line was is not known
        lost = rows[-1]["step"] if rows else 0
    if lost is not None:
        what = problem or "lines are missing"
        yield _again(cell, cell.evaluations, f"{what}, in the evaluation at step {lost}", lost, lost + 1)
    last = max([reached, *(row["step"] for row in rows)])
    yield from _pictures(cell, last)
    yield from _features(cell, last, status.state is WorkState.DONE)
    for file in (*sorted(cell.path.glob("lora/*.safetensors")), *sorted(cell.latents.glob("*.safetensors"))):
        if (problem := _broken_tensors(file)) is not None:
            yield _again(cell, file, problem, reached + 1, reached + 1, remove=file)


def _pictures(cell: CellDir, last: int) -> Iterator[Damage]:
    for file in sorted(cell.path.glob("samples/*/*.png")):
        if (problem := broken_picture(file)) is None:
            continue
        step = int(file.parent.name) if file.parent.name.isdigit() else 0
        if step < last:
            yield Damage(file, problem, "removed; it was drawn before later training", file.unlink)
        else:
            yield _again(cell, file, problem, step, step + 1, remove=file)


def _features(cell: CellDir, last: int, done: bool) -> Iterator[Damage]:
    """The last evaluation can be made again; of an earlier one the parameters are gone, and its distances."""
    for step, file in features.files_by_step(cell.features).items():
        try:
            features.read(file)
        except Damaged as error:
            what = _reason(file, error)
            if step == last:
                yield _again(cell, file, what, step, step + 1, remove=file)
            else:
                remedy = "removed; the distance from the base model at that step is lost, and nothing else"
                yield Damage(file, what, remedy, file.unlink)
    gone = features.lost(cell.features, last) if done else None
    if gone is not None:
        yield _again(cell, gone, "missing", last, last + 1, remove=gone)


def _broken_tensors(file: Path) -> str | None:
    try:
        with safe_open(file, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return f"no whole safetensors file ({error})"


def _again(
    cell: CellDir, file: Path, what: str, lost: int, too_late: int, remove: Path | None = None
) -> Damage:
    """Damage that the next run makes good.

    lost: the step from which on the log `file`, or the evaluation, is to be made again. too_late: the step of
    the first checkpoint that cannot be continued from.
    """
    usable = [step for step in Checkpoints(cell.path / "checkpoint").steps() if step < too_late]
    start = f"step {max(usable)}" if usable else "its beginning"
    remedy = f"what depends on it is removed; the next run continues from {start}"

    def repair() -> None:
        if remove is not None:
            remove.unlink(missing_ok=True)
        for log in (cell.metrics, cell.evaluations):
            if log == file or (remove is not None and log == cell.evaluations):
                write_rows(log, [row for row in _readable(log)[0] if row["step"] < lost])
        Checkpoints(cell.path / "checkpoint").forget(too_late)
        (cell.path / "status.json").unlink(missing_ok=True)

    return Damage(file, what, remedy, repair)


def _set_aside(place: WorkDir) -> None:
    config = place.path / "config.yaml"
    config.replace(config.with_name("config.yaml.damaged"))
    (place.path / "status.json").unlink(missing_ok=True)
