"""`python -m bench fetch`: everything that models, rewards and prompt sets need, before a run or for a node
without network.

Files come into the usual caches (the hub's, and our own: `bench.data.url`), or with `--to DIR` into DIR/hub
and DIR/bench, which are caches of the same form: copy DIR and point HF_HOME and BENCH_CACHE at it.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.base.console import note, plain
from bench.base.errors import BenchError
from bench.base.units import readable_size
from bench.data import prompts
from bench.data.need import Need
from bench.data.sources import Found, look
from bench.data.url import forget
from bench.experiment.ingredients import Ingredient

HERE = ("embedded", "path")  # nothing to download
TOLD_EVERY = 5.0  # seconds between lines about a download that takes long


def use_tree(directory: Path) -> None:
    """Put both caches below a directory. Only before anything of the hub is imported: it reads this once.

    Raises BenchError if a file is there.
    """
    if directory.exists() and not directory.is_dir():
        raise BenchError(f"--to {directory}: is there already, and no directory")
    if "huggingface_hub.constants" in sys.modules:
        raise RuntimeError("the hub's cache is already chosen")
    place = directory.expanduser().absolute()
    os.environ |= {"HF_HUB_CACHE": str(place / "hub"), "BENCH_CACHE": str(place / "bench")}


def run(console: Console, ingredients: Sequence[Ingredient], to: Path | None, dry_run: bool) -> int:
    """Fetch what is not here, then say where everything is. Returns 1 if something could not be had."""
    if not dry_run:
        for one in ingredients:
            _readable(console, one)
    needs = [need for one in ingredients for need in one.needs]
    waiting = [need for need in needs if look(need).path is None and need.kind not in HERE]
    if dry_run:
        _show(console, ingredients, frozenset())
        known = [one.gigabytes for one in ingredients if any(need in waiting for need in one.needs)]
        some = " and what is of unknown size" if None in known else ""
        total = sum(size or 0.0 for size in known)
        console.print(f"to download: {readable_size(total * 1e9)}{some}" if known else "nothing to download")
        return 0
    failures = _fetch_all(console, waiting)
    unreadable = [one for one in ingredients if not _readable(console, one)]
    failed = _show(console, ingredients, failures) or bool(unreadable)
    if to is not None:
        _say_how_to_use(console, to, failed)
    return 1 if failed else 0


def _fetch_all(console: Console, waiting: Sequence[Need]) -> frozenset[Need]:
    """Fetch one after the other; returns those that failed. The same reason is told once."""
    failures, told = set[Need](), set[str]()
    for number, need in enumerate(waiting, start=1):
        note(console, f"[{number}/{len(waiting)}] {need.name}: {need.source}")
        try:
            _fetch(console, need)
        except BenchError as error:
            failures.add(need)
            why = str(error).splitlines()[0].rpartition(" (")[2]  # the first line ends in it
            plain(console, "  failed: for the same reason" if why in told else f"  failed: {error}", "red")
            told.add(why)
    return frozenset(failures)


def _fetch(console: Console, need: Need) -> None:
    started = time.monotonic()
    if need.kind == "url":
        from bench.data.url import fetch_url

        size = f"about {readable_size(need.gigabytes * 1e9)}" if need.gigabytes else "size unknown"
        note(console, f"  {size}")
        fetch_url(need, _Lines(console))
    else:
        from bench.data import hub

        size = hub.download_size(need)
        _check_room(need, size)
        note(console, f"  {readable_size(size)}")
        hub.download(need)
    found = look(need)
    seconds = time.monotonic() - started
    note(console, f"  {readable_size(found.size)} here after {seconds:.0f} s: {found.path}")


def _check_room(need: Need, size: int) -> None:
    from huggingface_hub import constants

    from bench.data.hub import free_gigabytes

    cache = Path(constants.HF_HUB_CACHE)
    free = free_gigabytes(cache)
    if size / 1e9 > free:
        raise BenchError(
            f"{need.name}: {readable_size(size)} to download, and {free:.1f} GB free at {cache}. Free some "
            "space, or choose another disk: --to DIRECTORY, or the variable HF_HOME"
        )


class _Lines:
    """Tells how far a download is, now and then."""

    def __init__(self, console: Console) -> None:
        self.console, self.told = console, time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() - self.told > TOLD_EVERY:
            self.told = time.monotonic()
            of = "" if total is None else f" of {readable_size(total)}"
            note(self.console, f"  {readable_size(done)}{of}")


def _show(console: Console, ingredients: Sequence[Ingredient], failures: frozenset[Need]) -> bool:
    """The table of what is where; whether something is missing."""
    table = Table(box=None, padding=(0, 2, 0, 0), title="what is where", title_justify="left")
    table.add_column("for", no_wrap=True)
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("where", overflow="fold")
    lacking = False
    for one in ingredients:
        if not one.needs:
            table.add_row(one.label, "", "needs no files")
        rows: list[tuple[str, str, str]] = []
        for found in map(look, one.needs):
            lacking |= found.path is None
            name = one.label if found.need.name == "model" else found.need.name
            rows.append((name, _size_of(found, one), where(found, found.need in failures)))
        for row in dict.fromkeys(rows):
            count = rows.count(row)
            table.add_row(row[0], row[1] if count == 1 else f"{count} × {row[1]}", row[2])
    console.print()
    console.print(table)
    return lacking


def _readable(console: Console, one: Ingredient) -> bool:
    """Whether a prompt set that is here can be read: a login page answers 200, too. What was downloaded for
    nothing goes again, now or by an earlier command."""
    if one.kind != "prompts" or not one.needs or not one.complete:
        return True
    try:
        prompts.load(one.name)
    except BenchError as error:
        plain(console, f"prompts {one.name}: {error}", "red")
        for need in one.needs:
            if need.kind == "url":
                forget(need)
        return False
    return True


def _size_of(found: Found, ingredient: Ingredient) -> str:
    if found.path is not None:
        return readable_size(found.size)
    size = found.need.gigabytes or (ingredient.gigabytes if found.need.name == "model" else None)
    return f"≈ {readable_size(size * 1e9)}" if size else "?"


def where(found: Found, failed: bool = False) -> str:
    """The place of the files, or why there is none. failed: they were just asked for in vain."""
    if found.path is not None:
        return str(found.path)
    return found.problem or f"{'failed' if failed else 'not here'}: {found.need.source}"


def _say_how_to_use(console: Console, to: Path, failed: bool) -> None:
    place = to.expanduser().absolute()
    if failed:
        console.print("\nThe directory is not complete: the same command goes on with what is missing.")
    console.print(
        "\nCopy the directory to the other machine (rsync -a, or tar: it holds links), and type there:"
    )
    quoted = shlex.quote(str(place))
    for line in (f"HF_HOME={quoted}", f"BENCH_CACHE={shlex.quote(str(place / 'bench'))}", "HF_HUB_OFFLINE=1"):
        plain(console, f"  export {line}")
