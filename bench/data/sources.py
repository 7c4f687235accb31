"""Where weights are: a `Need` says what something cannot run without, `locate` finds or fetches it.

A source is one of

- `embedded:NAME`: ships with this package;
- `path:DIRECTORY`;
- `hub:ORG/NAME`: the Hugging Face hub through its cache; HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT (mirrors)
  are honoured;
- `url:https://…/FILE`: one file, through a cache of our own (`bench.data.url`);
- `random:NAME`: no weights at all: random numbers in the true shapes of an architecture.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bench
from bench.base.errors import BenchError
from bench.data.advice import CHECKPOINTS, how_to_convert
from bench.data.need import Need

EMBEDDED = Path(bench.__file__).parent / "models" / "embedded" / "weights"


def locate(need: Need) -> Path:
    """The directory with the files; what is on the hub is looked up in the cache, then downloaded.

    Raises BenchError that says how to get them.
    """
    if found := find(need):
        return found
    if need.kind == "url":
        from bench.data.url import fetch_url

        return fetch_url(need)
    from bench.data.hub import download

    return download(need)


def find(need: Need) -> Path | None:
    """The directory with the files if they are on this machine. Raises BenchError for a path without any."""
    if need.path is not None:
        return _existing(need.path, need)
    if need.source is None:
        raise BenchError(f"no weights named: give a directory with --set {need.setting}=DIRECTORY")
    if need.kind == "path":
        return _existing(Path(need.place), need)
    if need.kind == "embedded":
        return _existing(EMBEDDED / need.place, need)
    if need.kind == "url":
        from bench.data.url import cached_url

        return cached_url(need)
    from bench.data.hub import cached

    return cached(need)


@dataclass(frozen=True)
class Found:
    """Whether a need is met here. path: where; size: bytes; problem: why a named place is no good."""

    need: Need
    path: Path | None
    size: int = 0
    problem: str | None = None


def look(need: Need) -> Found:
    """Whether the files are on this machine, and how large they are. Asks nobody, raises nothing."""
    try:
        path = find(need)
    except BenchError as error:
        return Found(need, None, problem=str(error).splitlines()[0])
    return Found(need, path, 0 if path is None else _size(path, need))


def _size(directory: Path, need: Need) -> int:
    """Bytes of the files that are wanted; a file that is linked twice counts once."""
    files = {file.resolve() for file in _wanted(directory, need)}
    return sum(file.stat().st_size for file in files)


def _wanted(directory: Path, need: Need) -> Iterator[Path]:
    for file in directory.rglob("*"):
        inside = file.relative_to(directory).as_posix()
        known = need.kind != "hub" or any(fnmatch.fnmatch(inside, pattern) for pattern in need.files)
        if file.is_file() and known:
            yield file


def _existing(path: Path, need: Need) -> Path:
    directory = path.expanduser().resolve()
    if directory.is_file():
        hint = (
            f"\n{how_to_convert(directory)}"
            if directory.suffix in CHECKPOINTS and need.name == "model"
            else ""
        )
        raise BenchError(f"{directory}: a file, and {need.setting} names a directory{hint}")
    if not directory.is_dir():
        raise BenchError(
            f"no weights at {directory}: not a directory. Set {need.setting} to one that holds them."
        )
    named = [file for file in need.files if "*" not in file]
    if lacking := [file for file in named if not (directory / file).is_file()]:
        raise BenchError(
            f"no weights at {directory}: {', '.join(lacking)} is not there. Set {need.setting} to a "
            "directory that holds it."
        )
    return directory
