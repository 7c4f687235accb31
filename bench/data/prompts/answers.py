"""What language models answered: out of their text, and into a file for the next time.

The file is `dcot.jsonl` in the cache directory (`bench.data.cache`). Lines are only ever added,
each by one write, so processes may share it; of two answers to one question the first counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from bench.base.errors import BenchError
from bench.data.cache import cache_directory

# "Coarse-level:", "**Mid-level:** text", "### 3. Fine level", but not "fine-level details are…".
_HEADING = re.compile(
    r"[\W\d_]*(coarse|mid|middle|fine)[\s_–-]*(?:level|scale)(?:\s+prompt)?[\s*_`]*(?::[\s*_`]*(?P<text>.*))?",
    re.IGNORECASE,
)
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_MARKS = ' \t*_`"“”'


def parse(answer: str) -> Stages | None:
    """The three prompts of an answer in the instruction's format; None if one is absent or was not filled in.

    A prompt is the paragraph at its heading, on the same line or below. Of several with the same heading the
    last counts: models think aloud first.
    """
    found: dict[str, str] = {}
    part, lines = "", []

    def finish() -> None:
        text = " ".join(" ".join(lines).split()).strip(_MARKS)
        if part and text and text != "<COMPLETE>":
            found[part] = text

    for line in _THOUGHTS.sub("", answer).splitlines():
        if heading := _HEADING.fullmatch(line.strip()):
            finish()
            part, lines = heading[1].lower().replace("middle", "mid"), [heading["text"] or ""]
        elif line.strip():
            lines.append(line)
        elif any(lines):  # a blank line after text: what follows is chatter
            finish()
            part, lines = "", []
    finish()
    return Stages(*(found[p] for p in Stages._fields)) if found.keys() == set(Stages._fields) else None


def key(model: str, template: str, prompt: str) -> str:
    """What an answer is kept under."""
    return hashlib.sha256("\0".join((model, template, prompt)).encode()).hexdigest()


def path() -> Path:
    """The file of kept answers."""
    return cache_directory() / "dcot.jsonl"


def load() -> dict[str, Stages]:
    """All kept answers by their keys."""
    kept: dict[str, Stages] = {}
    try:
        lines = path().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return kept
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path()}: cannot read the kept answers of language models: {error}") from error
    for line in lines:
        try:
            record = json.loads(line)
            kept.setdefault(record["key"], Stages(record["coarse"], record["mid"], record["fine"]))
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a crash, or the blank one before the next: asked again
    return kept


def append(key: str, model: str, prompt: str, parts: Stages) -> None:
    """Add an answer to the file."""
    record = {"key": key, "model": model, "prompt": prompt, **parts._asdict()}
    # A line break first: whatever a crash left unfinished must not swallow this line.
    line = f"\n{json.dumps(record, ensure_ascii=False)}\n".encode()
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise BenchError(f"{path()}: cannot keep an answer: {error.strerror}") from error


class Stages(NamedTuple):
    """The three prompts of one; `stages[stage_of(i, steps, boundaries)]` is the prompt of step i."""

    coarse: str
    mid: str
    fine: str
