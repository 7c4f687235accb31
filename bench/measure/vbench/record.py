"""What the videos of a directory were made with: `videos.json` beside `videos/`. Two kinds are not mixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.data import digests
from bench.data import prompts as prompt_sets
from bench.data.need import needs_of
from bench.data.sources import locate
from bench.measure.vbench import suite
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.models.lora_place import weights_file
from bench.run.store import CellDir

if TYPE_CHECKING:
    from bench.measure.vbench.resolve import Resolved

IN_LORA = ("lora", "trained_on")  # of the LoRA, which lora_sha256 stands for


def place(out: Path) -> Path:
    """The record of a directory of videos."""
    return out.with_name(out.name + ".json")


def read(out: Path) -> dict[str, Any] | None:
    """What is on record; None if nothing is. Raises BenchError if it is damaged."""
    path = place(out)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, out, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, out, "not an object")
    return found


def _damaged(path: Path, out: Path, why: str) -> BenchError:
    return BenchError(
        f"{path}: damaged ({why}): nothing says what made {out}. Remove both, or choose another"
    )


def identity(found: Resolved) -> dict[str, Any]:
    """What makes two runs' videos the same: everything but which of them were asked for.

    Fetches hub weights that are not there yet. Raises BenchError.
    """
    lora = None if found.adapter is None else weights_file(found.adapter).read_bytes()
    return {
        "model": found.request.name,
        "settings": found.config.model_dump(mode="json"),
        "weights": _weights(found),
        "lora": None if found.adapter is None else str(found.adapter),
        "lora_sha256": None if lora is None else hashlib.sha256(lora).hexdigest(),
        "trained_on": None if found.request.lora is None else trained_on(found.request.lora),
        "dcot": None if found.dcot is None else found.dcot.model_dump(mode="json"),
        "seed": found.request.seed,
        "fps": found.fps,
    }


def trained_on(lora: Path) -> dict[str, Any] | None:
    """The prompt set of a trained cell and how many of the suite's prompts it was trained on.

    None for an adapter from elsewhere; no number if the set is not on this machine.
    """
    cell = next(
        (place for place in (lora, lora.absolute().parent) if (place / "config.yaml").is_file()), None
    )
    if cell is None:
        return None
    name = CellDir(cell).config().prompts
    try:
        of_suite = len(set(prompt_sets.load(name).train) & set(suite.distinct()))
    except BenchError:
        of_suite = None
    return {"prompts": name, "of_suite": of_suite}


def trained_note(out: Path) -> str:
    """That the model of these videos was trained on the suite's prompts; empty if not, or if it is not known.

    Raises BenchError for a damaged record.
    """
    match read(out):
        case {"trained_on": {"of_suite": int(count)}} if count:
            return f"trained on {count} of the suite's {len(suite.distinct())} prompts"
        case _:
            return ""


def _weights(found: Resolved) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for need in needs_of(found.config, "model", "model"):
        directory = locate(need)
        filters = (need.files, need.ignored) if need.kind == "hub" else ()
        chosen[need.name] = digests.digest(directory, *filters)
    return chosen


def record(found: Resolved, force: bool) -> dict[str, Any]:
    """Write what the videos are made with beside their directory; refuse to mix two kinds in one.

    With `force` what was made before goes, and only then the record changes: the videos that were asked for
    and, if they were made with other settings, all the others of the suite too. Without a video a record
    binds nobody. Returns the record.
    """
    out, mine = found.request.videos, identity(found)
    made = suite.videos(tuple(DIMENSIONS.values()))
    there = [video for video in made if (out / video.name).is_file()]
    others = differing(out, mine) if there else []
    if others and not force:
        raise BenchError(
            f"{out} holds videos made with another {', '.join(others)} ({place(out).name} says which): "
            "choose another --out, or make them again with --force"
        )
    if force:
        for video in there if others else found.request.listed():
            (out / video.name).unlink(missing_ok=True)
    write_atomically(place(out), json.dumps(mine, indent=2, ensure_ascii=False) + "\n")
    return mine


def differing(out: Path, mine: dict[str, Any]) -> list[str]:
    """The settings in which the record of a directory is not this one. None on record: none."""
    before = read(out)
    if before is None:
        return []
    return [k for k in mine if k not in IN_LORA and (k not in before or before[k] != mine[k])]


def check(out: Path, mine: dict[str, Any]) -> None:
    """Raise BenchError if another process has begun to make other videos there."""
    if others := differing(out, mine):
        raise BenchError(
            f"{out}: another process began to make videos there with another {', '.join(others)}: choose "
            "another --out"
        )
