"""A directory of pictures from anywhere, and the prompt of each.

Where prompts come from: the first of these that is there holds for all pictures, and every one must have its
prompt there.

1. the file that `--prompts-file` names: a list as below, or text with one line for each picture, in the order
   of the pictures' names (2.png before 10.png);
2. `prompts` or `metadata` in the directory, `.jsonl`, `.json` or `.csv`: records
   `{"file": "x.png", "prompt": "…"}` (`file_name` is as good as `file`; other keys play no part). Paths are
   relative to the directory, and may lead to pictures in directories below it;
3. text files beside the pictures: `x.txt` for `x.png`;
4. the pictures' names: `{prompt}-{n}.png` as VBench writes them, `_` for a space where there are no spaces.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from bench.base.errors import BenchError
from bench.data.prompts import records
from bench.data.prompts.records import Row

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LISTS = tuple(f"{stem}{suffix}" for stem in ("prompts", "metadata") for suffix in records.SUFFIXES)
KEYS = ("file", "file_name")
NAMED = re.compile(r"(?P<prompt>.*[^\W\d_].*)-\d+")  # with at least one letter


class Picture(NamedTuple):
    """A file, and what it should show."""

    file: Path
    prompt: str


def find(directory: Path, prompts_file: Path | None = None) -> list[Picture]:
    """The pictures of a directory by name, numbers in names as numbers: those in it, and those below it that
    a list names. Paths are absolute. Raises BenchError."""
    if not directory.is_dir():
        raise BenchError(f"--images {directory}: not a directory")
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - without following links
    files = sorted((file for file in directory.iterdir() if file.suffix.lower() in SUFFIXES), key=_order)
    here = [directory / name for name in LISTS if (directory / name).is_file()]
    source = prompts_file or next(iter(here), None)
    if source is not None and (source in here or source.suffix.lower() in records.SUFFIXES):
        return _from_list(directory, files, source)
    if not files:
        raise BenchError(f"--images {directory}: no pictures there ({', '.join(SUFFIXES)})")
    if source is not None:
        return _from_lines(files, source)
    if any(file.with_suffix(".txt").is_file() for file in files):
        return [Picture(file, _beside(file)) for file in files]
    return [Picture(file, _from_name(file)) for file in files]


def _order(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts 2.png before 10.png, and a01.png before a1.png."""
    parts = re.split(r"([0-9]+)", str(file))  # texts and numbers in turn
    return [(int(part), "") if n % 2 else (0, part) for n, part in enumerate(parts)], str(file)


def _from_lines(files: list[Path], source: Path) -> list[Picture]:
    lines = [line for _, line in records.lines(source)]
    if len(lines) != len(files):
        raise BenchError(f"{source}: {len(lines)} prompts for {len(files)} pictures; one line each is needed")
    return [Picture(file, line) for file, line in zip(files, lines, strict=True)]


def _from_list(directory: Path, files: list[Path], source: Path) -> list[Picture]:
    known: dict[Path, tuple[str, str]] = {}  # file → where it stands, prompt
    for row in records.read(source):
        name, prompt = _record(row)
        file = Path(os.path.normpath(directory / name))
        if file in known:
            raise BenchError(
                f"{row.where} names {name} again, after {known[file][0]}; give each picture once"
            )
        known[file] = row.where, prompt
    lacking = [file.name for file in files if file not in known]
    if lacking:
        raise BenchError(f"{source}: no prompt for {_some(lacking)}")
    strange = [
        os.path.relpath(file, directory)
        for file in known
        if not file.is_file() or directory not in file.parents
    ]
    if strange:
        raise BenchError(f"{source}: names pictures that are not there: {_some(strange)} (in {directory})")
    if not known:
        raise BenchError(f"{source}: is empty; it should name the pictures of {directory}")
    return [Picture(file, known[file][1]) for file in sorted(known, key=_order)]


def _record(row: Row) -> tuple[str, str]:
    """The file that a record names, and its prompt."""
    named = [row.values[key] for key in KEYS if key in row.values]
    prompt = row.values.get("prompt")
    if len(named) != 1 or not isinstance(named[0], str) or not isinstance(prompt, str) or not prompt.strip():
        raise BenchError(f'{row.where}: expected {{"file": "x.png", "prompt": "…"}}')
    return named[0], prompt.strip()


def _beside(file: Path) -> str:
    text = file.with_suffix(".txt")
    if not text.is_file():
        raise BenchError(f"{file}: no {text.name} beside it with its prompt, as other pictures there have")
    prompt = records.text_of(text).strip()
    if not prompt:
        raise BenchError(f"{text}: is empty; it should hold the prompt of {file.name}")
    return prompt


def _from_name(file: Path) -> str:
    match = NAMED.fullmatch(file.stem)
    if match is None:
        raise BenchError(
            f"{file}: nothing says what it should show. Give prompts in one of these ways:\n"
            f'  {file.parent / LISTS[0]} with lines {{"file": "{file.name}", "prompt": "a red cat"}}\n'
            f"  {file.with_suffix('.txt').name} beside it, with the prompt\n"
            f"  a name such as a_red_cat-0{file.suffix}\n"
            "  --prompts-file FILE"
        )
    prompt = match["prompt"]
    return prompt if " " in prompt else prompt.replace("_", " ").strip()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
