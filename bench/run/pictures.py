"""A directory of pictures from anywhere, and the prompt of each.

Where prompts come from: the first of these that is there holds for all pictures, and every one must have its
prompt there.

1. the file that `--prompts-file` names: `.jsonl` as below, or text with one line for each picture, in the
   order of the pictures' names;
2. `prompts.jsonl`, then `metadata.jsonl`, in the directory: lines `{"file": "x.png", "prompt": "…"}`
   (`file_name` is as good as `file`; other keys play no part);
3. text files beside the pictures: `x.txt` for `x.png`;
4. the pictures' names: `{prompt}-{n}.png` as VBench writes them, `_` for a space where there are no spaces.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from bench.base.errors import BenchError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LISTS = ("prompts.jsonl", "metadata.jsonl")
NAMED = re.compile(r"(?P<prompt>.*[^\W\d_].*)-\d+")  # with at least one letter


class Picture(NamedTuple):
    """A file, and what it should show."""

    file: Path
    prompt: str


def find(directory: Path, prompts_file: Path | None = None) -> list[Picture]:
    """The pictures of a directory (not of those in it), by name. Raises BenchError."""
    if not directory.is_dir():
        raise BenchError(f"--images {directory}: not a directory")
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise BenchError(f"--images {directory}: no pictures there ({', '.join(SUFFIXES)})")
    if prompts_file is not None:
        return _from_file(files, prompts_file)
    for name in LISTS:
        if (directory / name).is_file():
            return _from_list(files, directory / name)
    if any(file.with_suffix(".txt").is_file() for file in files):
        return [Picture(file, _beside(file)) for file in files]
    return [Picture(file, _from_name(file)) for file in files]


def _from_file(files: list[Path], source: Path) -> list[Picture]:
    if source.suffix == ".jsonl":
        return _from_list(files, source)
    lines = [line.strip() for line in _read(source).splitlines() if line.strip()]
    if len(lines) != len(files):
        raise BenchError(f"{source}: {len(lines)} prompts for {len(files)} pictures; one line each is needed")
    return [Picture(file, line) for file, line in zip(files, lines, strict=True)]


def _from_list(files: list[Path], source: Path) -> list[Picture]:
    known: dict[str, str] = {}
    for number, line in enumerate(_read(source).splitlines(), start=1):
        if line.strip():
            name, prompt = _record(f"{source}: line {number}", line)
            known[name] = prompt
    lacking = [file.name for file in files if file.name not in known]
    if lacking:
        raise BenchError(f"{source}: no prompt for {_some(lacking)}")
    strange = sorted(set(known) - {file.name for file in files})
    if strange:
        raise BenchError(f"{source}: names pictures that are not there: {_some(strange)}")
    return [Picture(file, known[file.name]) for file in files]


def _record(where: str, line: str) -> tuple[str, str]:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise BenchError(f"{where} is not JSON: {error}") from error
    keys = record if isinstance(record, dict) else {}
    name = next((keys[key] for key in ("file", "file_name") if key in keys), None)
    if not isinstance(name, str) or "prompt" not in keys or not str(keys["prompt"]).strip():
        raise BenchError(f'{where}: expected {{"file": "x.png", "prompt": "…"}}')
    return Path(name).name, str(keys["prompt"]).strip()


def _beside(file: Path) -> str:
    text = file.with_suffix(".txt")
    if not text.is_file():
        raise BenchError(f"{file}: no {text.name} beside it with its prompt, as other pictures there have")
    prompt = _read(text).strip()
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


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: cannot be read: {error}") from error


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
