"""A user's own prompts.

- `.jsonl`: one object per line, `{"prompt": "…", "split": "train"}` or `"split": "eval"`. Leave `split` out
  of all lines, or of none.
- anything else is text, one prompt per line.

Files are UTF-8, blank lines do not count, a prompt may occur once. Without splits about one prompt in five is
held out for evaluation. A hash of its text decides, so adding lines moves no prompt to the other side (except
that a side which would stay empty takes one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError, did_you_mean

KEYS = ("prompt", "split")
SPLITS = ("train", "eval")
HELD_OUT_SHARE = 0.2

Line = tuple[int, str, str | None]  # line number, prompt, split


def read(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training prompts, evaluation prompts) of a file. Raises BenchError, naming the line, if malformed."""
    lines = _jsonl(path) if path.suffix == ".jsonl" else _text(path)
    if not lines:
        raise BenchError(f"{path}: there are no prompts in this file")
    _refuse_repetition(path, lines)
    if all(split is None for _, _, split in lines):
        return hash_split(path, tuple(prompt for _, prompt, _ in lines))
    for number, _, split in lines:
        if split is None:
            raise BenchError(f"{path}: line {number} has no 'split' but others do; give it to all or to none")
    train, held_out = (tuple(p for _, p, split in lines if split == wanted) for wanted in SPLITS)
    for prompts, split in ((train, "train"), (held_out, "eval")):
        if not prompts:
            raise BenchError(f'{path}: no line has "split": "{split}"; both splits are needed')
    return train, held_out


def contents(path: Path) -> list[tuple[int, str]]:
    """Stripped lines that are not blank, with their numbers from 1. Raises BenchError if unreadable."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such prompt file") from error
    except OSError as error:
        raise BenchError(f"{path}: cannot read the prompt file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 text (byte {error.start}): {error.reason}") from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in stripped if line]


def _text(path: Path) -> list[Line]:
    return [(number, line, None) for number, line in contents(path)]


def _jsonl(path: Path) -> list[Line]:
    return [_record(f"{path}: line {number}", number, line) for number, line in contents(path)]


def _record(where: str, number: int, line: str) -> Line:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise BenchError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise BenchError(f'{where} is not an object; expected {{"prompt": "…", "split": "train"}}')
    for key in record:
        if key not in KEYS:
            known = f"{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}"
            raise BenchError(f"{where}: {key}: unknown key.{known}")
    if "prompt" not in record or not isinstance(record["prompt"], str) or not record["prompt"].strip():
        raise BenchError(f"{where}: 'prompt' must be a text that is not empty")
    if "split" not in record:
        return number, record["prompt"].strip(), None
    if record["split"] not in SPLITS:
        raise BenchError(f"{where}: split must be 'train' or 'eval', not {record['split']!r}")
    return number, record["prompt"].strip(), record["split"]


def _refuse_repetition(path: Path, lines: list[Line]) -> None:
    first: dict[str, tuple[int, str | None]] = {}
    for number, prompt, split in lines:
        if prompt in first:
            earlier, other = first[prompt]
            why = "" if split == other else "; evaluation must use prompts that training never sees"
            raise BenchError(f"{path}: line {number} repeats the prompt of line {earlier}, {prompt!r}{why}")
        first[prompt] = (number, split)


def hash_split(path: Path, prompts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and evaluation prompts, each in the order of the file. prompts: no two are the same."""
    if len(prompts) < 2:
        raise BenchError(f"{path}: only one prompt; it takes two, one to train on and one to evaluate on")
    place = {p: int.from_bytes(hashlib.sha256(p.encode()).digest()[:8], "big") / 2**64 for p in prompts}
    held_out = {p for p in prompts if place[p] < HELD_OUT_SHARE} or {min(prompts, key=place.__getitem__)}
    if len(held_out) == len(prompts):
        held_out.remove(max(prompts, key=place.__getitem__))
    return tuple(p for p in prompts if p not in held_out), tuple(p for p in prompts if p in held_out)
