"""A user's own prompts.

- `.jsonl`: one object per line, `{"prompt": "…", "split": "train"}` or `"split": "eval"`. Leave `split` out
  of all lines, or of none.
- `.json`: a list of such objects, or of texts.
- `.csv`: a table whose first line names the columns, `prompt` and maybe `split`; others play no part.
- `.txt`, or a name without an ending: one prompt per line.

Files are UTF-8, blank lines do not count, a prompt may occur once. Without splits about one prompt in five is
held out for evaluation. A hash of its text decides, so adding lines moves no prompt to the other side (except
that a side which would stay empty takes one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bench.base.errors import BenchError, did_you_mean
from bench.data.prompts import records
from bench.data.prompts.records import Row

SPLIT = ("split",)
KEYS = ("prompt", *SPLIT)
SPLITS = ("train", "eval")
HELD_OUT_SHARE = 0.2

Line = tuple[str, str, str | None]  # where it stands, prompt, split


def read(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training prompts, evaluation prompts) of a file. Raises BenchError, naming the line, if malformed."""
    if path.suffix.lower() in records.SUFFIXES:
        lines = [_line(row, strict=path.suffix.lower() != ".csv") for row in records.read(path)]
    else:
        lines = [(f"{path}: line {number}", line, None) for number, line in records.lines(path)]
    if not lines:
        raise BenchError(f"{path}: there are no prompts in this file")
    _refuse_repetition(lines)
    if all(split is None for _, _, split in lines):
        return hash_split(path, tuple(prompt for _, prompt, _ in lines))
    for where, _, split in lines:
        if split is None:
            raise BenchError(f"{where} has no 'split' but others do; give it to all or to none")
    train, held_out = (tuple(p for _, p, split in lines if split == wanted) for wanted in SPLITS)
    for prompts, split in ((train, "train"), (held_out, "eval")):
        if not prompts:
            raise BenchError(f'{path}: no line has "split": "{split}"; both splits are needed')
    return train, held_out


def _line(row: Row, strict: bool) -> Line:
    """strict: whether every key that means nothing is a mistake; else only one that looks like `split`."""
    where, record = row
    for key in record:
        hint = did_you_mean(key, KEYS if strict else SPLIT)
        if key not in KEYS and (strict or hint):
            raise BenchError(f"{where}: {key}: unknown key.{hint} Known: {', '.join(KEYS)}")
    if "prompt" not in record or not isinstance(record["prompt"], str) or not record["prompt"].strip():
        raise BenchError(f"{where}: 'prompt' must be a text that is not empty")
    if "split" not in record:
        return where, record["prompt"].strip(), None
    if record["split"] not in SPLITS:
        raise BenchError(f"{where}: split must be 'train' or 'eval', not {record['split']!r}")
    return where, record["prompt"].strip(), record["split"]


def _refuse_repetition(lines: Sequence[Line]) -> None:
    first: dict[str, tuple[str, str | None]] = {}
    for where, prompt, split in lines:
        if prompt in first:
            earlier, other = first[prompt]
            why = "" if split == other else "; evaluation must use prompts that training never sees"
            place = earlier.rpartition(": ")[2]
            raise BenchError(f"{where} repeats the prompt of {place}, {prompt!r}{why}")
        first[prompt] = (where, split)


def hash_split(path: Path, prompts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and evaluation prompts, each in the order of the file. prompts: no two are the same."""
    if len(prompts) < 2:
        raise BenchError(f"{path}: only one prompt; it takes two, one to train on and one to evaluate on")
    place = {p: int.from_bytes(hashlib.sha256(p.encode()).digest()[:8], "big") / 2**64 for p in prompts}
    held_out = {p for p in prompts if place[p] < HELD_OUT_SHARE} or {min(prompts, key=place.__getitem__)}
    if len(held_out) == len(prompts):
        held_out.remove(max(prompts, key=place.__getitem__))
    return tuple(p for p in prompts if p not in held_out), tuple(p for p in prompts if p in held_out)
