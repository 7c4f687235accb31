"""Prompt sets and the order in which training visits them. No torch in here.

`load("emoji")` and `load("animals")` are built in; anything else is a user's file, see `bench.prompts.files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, did_you_mean
from bench.prompts import animals, files
from bench.prompts.sampler import PromptSampler

__all__ = ["BUILT_IN", "PromptSampler", "PromptSet", "load"]

BUILT_IN = ("animals", "emoji")


@dataclass(frozen=True)
class PromptSet:
    """Prompts to train on and prompts to evaluate on. Neither is empty, and no prompt occurs twice."""

    name: str
    train: tuple[str, ...]
    eval: tuple[str, ...]

    def __post_init__(self) -> None:
        for split, prompts in (("training", self.train), ("evaluation", self.eval)):
            if not prompts:
                raise BenchError(f"prompts '{self.name}': there are no {split} prompts")
            if any(not p.strip() for p in prompts):
                raise BenchError(f"prompts '{self.name}': an empty prompt among the {split} prompts")
            if repeated := _first_repeated(prompts):
                raise BenchError(f"prompts '{self.name}': {repeated!r} is twice among the {split} prompts")
        held_out = set(self.eval)
        if shared := [p for p in self.train if p in held_out]:
            raise BenchError(
                f"prompts '{self.name}': {shared[0]!r} is in both splits"
                f" ({len(shared)} in all); evaluation must use prompts that training never sees"
            )


def load(name_or_path: str | Path) -> PromptSet:
    """The built-in set of that name, or the set in a user's file (named after the file).

    Raises BenchError: unknown name, missing or unreadable file, malformed line, a prompt that occurs twice.
    """
    if name_or_path == "emoji":
        from bench.models.embedded.prompts import heldout_prompts, train_prompts

        return PromptSet("emoji", tuple(train_prompts()), tuple(heldout_prompts()))
    if name_or_path == "animals":
        return PromptSet("animals", animals.TRAIN, animals.EVAL)
    path = Path(name_or_path).expanduser()
    if not path.exists() and not path.suffix and path.name == str(name_or_path):
        raise BenchError(
            f"unknown prompt set '{name_or_path}'.{did_you_mean(str(name_or_path), BUILT_IN)}"
            f" Known: {', '.join(BUILT_IN)}; or give the path of a .txt or .jsonl file."
        )
    train, held_out = files.read(path)
    return PromptSet(path.stem, train, held_out)


def _first_repeated(prompts: Sequence[str]) -> str | None:
    """The first prompt that occurred before, if any."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt in seen:
            return prompt
        seen.add(prompt)
    return None
