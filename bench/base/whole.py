"""Whether a network got all its numbers from its files: libraries fill in random ones and go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.base.errors import BenchError


def check_whole(found: Mapping[str, Any], where: str, kind: str) -> None:
    """Raise BenchError unless every tensor of a network was in its files, in its shape.

    found: what `from_pretrained(…, output_loading_info=True)` of transformers or diffusers returned beside
    the network. where: begins the message. kind: of checkpoint, for the message.
    """
    if found["missing_keys"]:
        instead = f"; it has {some(found['unexpected_keys'])} instead" if found["unexpected_keys"] else ""
        raise BenchError(
            f"{where} is not a whole {kind} checkpoint: it lacks {some(found['missing_keys'])}{instead}. It "
            "may be cut short or converted wrongly: fetch or convert it again"
        )
    if found["mismatched_keys"]:
        key, have, want = min(found["mismatched_keys"])
        raise BenchError(
            f"{where}: config.json and weights are not of the same {kind} checkpoint: "
            f"{key} is {list(have)}, not {list(want)}"
        )


def some(names: Iterable[str]) -> str:
    """The first three in alphabetical order, and how many more there are."""
    known = sorted(names)
    return ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
