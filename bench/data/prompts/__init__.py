"""Prompt sets and the order in which training visits them. No torch in here.

The sets of `BUILT_IN` go by their names; anything else is a user's file, see `bench.data.prompts.files`.
Where the sets come from: docs/prompts.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.base.errors import BenchError, did_you_mean
from bench.data.prompts import animals, files, hand, signs
from bench.data.prompts.sampler import PromptSampler

if TYPE_CHECKING:
    from bench.data.need import Need

__all__ = ["BUILT_IN", "PromptSampler", "PromptSet", "load", "needs"]

BUILT_IN: dict[str, str] = {
    "animals": "DDPO's 45 animals; held out: 20 others",
    "drawbench": "DrawBench (Imagen), 200 prompts that are hard to follow; fetched",
    "emoji": "what the embedded model draws; held out: combinations that it never saw",
    "emoji-motion": "what the embedded video model shows; held out: combinations that it never saw",
    "hand": "the paper's five hand prompts; held out: eight of our own",
    "hpdv2": "HPDv2's benchmark prompts, 800 in each of four styles; fetched",
    "hpdv2-anime": "of HPDv2, the style anime; fetched",
    "hpdv2-concept-art": "of HPDv2, the style concept art; fetched",
    "hpdv2-paintings": "of HPDv2, the style paintings; fetched",
    "hpdv2-photo": "of HPDv2, the style photo; fetched",
    "partiprompts": "PartiPrompts (P2), 1600 prompts of all kinds; fetched",
    "pickapic": "what users of Pick-a-Pic typed: 500 to train on, 500 held out; fetched, needs pyarrow",
    "signs": "a text in quotes that is to be read in the picture; held out: other texts",
    "vbench": "VBench's suite of prompts for video",
}


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
            if repeated := [prompt for prompt, count in Counter(prompts).items() if count > 1]:
                raise BenchError(f"prompts '{self.name}': {repeated[0]!r} is twice among the {split} prompts")
        held_out = set(self.eval)
        if shared := [p for p in self.train if p in held_out]:
            raise BenchError(
                f"prompts '{self.name}': {shared[0]!r} is in both splits"
                f" ({len(shared)} in all); evaluation must use prompts that training never sees"
            )


def load(name_or_path: str | Path) -> PromptSet:
    """The built-in set of that name, or the set in a user's file (named after the file).

    Raises BenchError: unknown name, a set that was not fetched (with the command that does), missing or
    unreadable file, malformed line, a prompt that occurs twice.
    """
    if name_or_path == "emoji":
        return _emoji()
    if name_or_path == "emoji-motion":
        return _emoji_motion()
    if name_or_path == "animals":
        return PromptSet("animals", animals.TRAIN, animals.EVAL)
    if name_or_path == "hand":
        return PromptSet("hand", hand.TRAIN, hand.EVAL)
    if name_or_path == "signs":
        return PromptSet("signs", signs.prompts(signs.TRAINED), signs.prompts(signs.HELD_OUT))
    if name_or_path in BUILT_IN:
        return _public(str(name_or_path))
    path = Path(name_or_path).expanduser()
    if not path.exists() and not path.suffix and path.name == str(name_or_path):
        raise BenchError(
            f"unknown prompt set '{name_or_path}'.{did_you_mean(str(name_or_path), list(BUILT_IN))}"
            f" Known: {', '.join(BUILT_IN)}; or give the path of a .txt, .jsonl, .json or .csv file."
        )
    train, held_out = files.read(path)
    return PromptSet(path.stem, train, held_out)


@cache
def _emoji() -> PromptSet:
    from bench.data.prompts.emoji import heldout_prompts, train_prompts

    return PromptSet("emoji", tuple(train_prompts()), tuple(heldout_prompts()))


@cache
def _emoji_motion() -> PromptSet:
    from bench.data.prompts.emoji_motion import heldout_clip_prompts, train_clip_prompts

    return PromptSet("emoji-motion", tuple(train_clip_prompts()), tuple(heldout_clip_prompts()))


def needs(name_or_path: str | Path) -> tuple[Need, ...]:
    """The files that a set is made from and that do not ship with this package; none for a user's file."""
    if name_or_path not in BUILT_IN:
        return ()
    from bench.data.prompts.public import SETS

    return SETS[str(name_or_path)].files if name_or_path in SETS else ()


def _public(name: str) -> PromptSet:
    from bench.data.prompts import public

    if name == "vbench":
        return PromptSet(name, *public.load_vbench())
    return PromptSet(name, *public.SETS[name].load(name))
