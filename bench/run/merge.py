"""Results directories joined into a new one: `bench merge`. docs/several.md.

Everything is checked before anything is written. The new directory is made beside its place and renamed when
it is whole: whatever ends a merge, the place holds all of it or nothing. Sources are only read. No torch
here.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.base.console import progress
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.layers import Tree, dump_yaml, read_yaml
from bench.base.locks import lock
from bench.experiment.settings import SCHEMA_VERSION
from bench.run import claims, twins
from bench.run.store import KEPT, CellDir, WorkDir, WorkState
from bench.run.twins import FOLDERS, Chosen
from bench.run.work import CellWork, kind_of

REQUEST = "experiment.yaml"
DERIVED = ("report", "gradients.csv", "gradients_terms.csv", "gradients_steps.csv", "gradients_cosine.csv")
# Below a cell: files that are never written again, but replaced. All others are copied also with `link`.
LINKED = frozenset({"checkpoint", "features", "latents", "samples"})


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    shared: pieces of work that lay in several directories. left: what was not merged.
    """

    out: Path
    cells: int
    profiles: int
    shared: int
    left: tuple[Path, ...]


def merge(places: Sequence[Path], out: Path, link: bool = False) -> Merged:
    """Join results directories. link: large files are hard links to those of the sources.

    Raises BenchError, with all cells or profiles that are refused in it, before anything is written.
    """
    _check_places(places, out)
    chosen = {folder: _chosen(places, folder) for folder in FOLDERS}
    request = _request(places, list(chosen["cells"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    if link and len({place.stat().st_dev for place in (*places, out.parent)}) > 1:
        raise BenchError("--link: hard links do not reach other file systems: leave it out, or merge there")
    progress(f"copying {sum(map(len, chosen.values()))} cells and gradient profiles")
    with _made_beside(out) as place:
        for folder, found in chosen.items():
            for one in found.values():
                _copy(one, place / folder / one.directory.id, link)
        write_atomically(place / REQUEST, dump_yaml(request))
        if changed := [
            text for found in chosen.values() for one in found.values() if (text := _busy(one.directory))
        ]:
            raise BenchError("\n".join([*changed, "Nothing was merged: begin again when it has ended."]))
    every = [one for found in chosen.values() for one in found.values()]
    return Merged(
        out,
        cells=len(chosen["cells"]),
        profiles=len(chosen["gradients"]),
        shared=sum(bool(one.others) for one in every),
        left=tuple(path for place in places for path in _left(place)),
    )


def _check_places(places: Sequence[Path], out: Path) -> None:
    resolved = [place.resolve() for place in places]
    if len(set(resolved)) < max(len(resolved), 2):
        raise BenchError("merge takes two results directories or more, each of them named once")
    for place in places:
        if not any((place / folder).is_dir() for folder in FOLDERS):
            raise BenchError(f"{place}: no results directory: neither cells/ nor gradients/ in it")
    if out.exists() or out.is_symlink():
        raise BenchError(
            f"--out {out} exists: merge writes a new directory; name another, or move that one away"
        )


def _chosen(places: Sequence[Path], folder: str) -> dict[str, Chosen]:
    """Which copy of every piece of work is taken. Raises BenchError with all that cannot be merged."""
    found, wrong = dict[str, Chosen](), list[str]()
    for name, copies in twins.by_id(places, folder).items():
        try:
            if unfit := [text for place in copies if (text := _unfit(place))]:
                wrong += unfit
                continue
            found[name] = twins.choose(copies)
        except BenchError as error:
            wrong.append(str(error))
            continue
        for other, what in found[name].conflicts:
            wrong.append(
                f"{name} has other numbers in {other.path} than in {found[name].directory.path} ({what}): "
                "move the one away that is not wanted"
            )
    if wrong:
        raise BenchError("\n".join([*wrong, "Nothing was merged."]))
    return found


def _unfit(place: WorkDir) -> str:
    """Why a piece of work cannot be merged now; empty if it can. Raises BenchError, too."""
    status = place.status()
    if status.state is WorkState.DAMAGED:
        return status.message or str(place.path)
    if (place.path / "config.yaml").is_file() and place.path.parent.name == "cells":
        kind = kind_of(CellDir(place.path))
        if kind is not CellWork:
            return f"{place.path}: work of its own kind ({kind.command}), which stays where its files lie"
    return _busy(place)


def _busy(place: WorkDir) -> str:
    """Who works on it, or is going to; empty if nobody does, as after a kill on this machine."""
    advice = "wait until it has ended, or end it"
    held = claims.read(place)
    if held is not None and held[0].submission:
        return f"{place.path}: the SLURM submission {held[0].token} runs it or will: {advice} (bench cancel)"
    if held is not None and claims.owner_lives(*held):
        return f"{place.path}: process {held[0].pid} on {held[0].host} runs it: {advice}"
    status = place.status()
    if status.state is WorkState.RUNNING and status.host != socket.gethostname():
        return (
            f"{place.path}: is running, process {status.pid} on {status.host}: {advice}. If it was killed, "
            "give the command that wrote it again"
        )
    return f"{place.path}: another process writes it: {advice}" if _locked(place.path / "lock") else ""


def _locked(file: Path) -> bool:
    if not file.exists():
        return False
    with file.open("r+b" if os.access(file, os.W_OK) else "rb") as stream:
        return not lock(stream, file)


@contextmanager
def _made_beside(out: Path) -> Iterator[Path]:
    """An empty directory that takes its place when the context ends well, and is gone otherwise.

    One that a killed merge has left is removed by the next.
    """
    place, guard = out.parent / f".{out.name}.merging", out.parent / f".{out.name}.merging.lock"
    with guard.open("a") as stream:
        if not lock(stream, guard):
            raise BenchError(f"--out {out}: another merge is writing there")
        shutil.rmtree(place, ignore_errors=True)
        try:
            place.mkdir()
            yield place
            if out.exists():
                raise BenchError(f"--out {out} has come to exist during the merge: nothing was merged")
            place.rename(out)
        except OSError as error:
            what = (
                error.args[0][0][-1] if isinstance(error, shutil.Error) else error
            )  # the first of all files
            raise BenchError(f"cannot merge into {out}: {what}. Nothing was merged.") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
            guard.unlink(missing_ok=True)


def _copy(one: Chosen, to: Path, link: bool) -> None:
    """One piece of work, and evaluations that only another copy of it has."""
    source = one.directory.path

    def copy(file: str, target: str) -> None:
        if link and Path(file).relative_to(source).parts[0] in LINKED:
            os.link(file, target)
        else:
            shutil.copy2(file, target)

    shutil.copytree(source, to, symlinks=True, copy_function=copy, ignore=_ignored(source))
    end = one.directory.status()
    for other in one.others:
        status = other.status()
        if status.state is end.state is WorkState.DONE and status.step == end.step:
            for file in sorted((other.path / "evaluations").glob("*.jsonl")):
                if not (target := to / "evaluations" / file.name).exists():
                    target.parent.mkdir(exist_ok=True)
                    shutil.copy2(file, target)


def _ignored(source: Path) -> Callable[[str, list[str]], list[str]]:
    """What belongs to a process, not to the work."""

    def names(folder: str, found: list[str]) -> list[str]:
        own = [n for n in found if n.startswith(KEPT)] if Path(folder) == source else []
        return own + [name for name in found if name.startswith(".") and name.endswith(".tmp")]

    return names


def _request(places: Sequence[Path], cells: list[str]) -> Tree:
    """experiment.yaml: those of all directories, with where they lay; of a merged one those that it has."""
    found: list[Tree] = []
    for place in places:
        own = read_yaml(place / REQUEST) if (place / REQUEST).is_file() else {}
        found += own["merged"] if "merged" in own else [{"directory": str(place), **own}]
    return {"schema_version": SCHEMA_VERSION, "merged": found, "cells": cells}


def _left(place: Path) -> list[Path]:
    """What lies in a directory besides, but for what a report makes again."""
    known = {REQUEST, *FOLDERS, *DERIVED}
    return [path for path in sorted(place.iterdir()) if path.name not in known]
