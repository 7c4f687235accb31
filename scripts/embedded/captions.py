"""Captions of composed pictures, and the rule that keeps held-out combinations out of training."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bench.data.prompts.emoji import CONCEPTS, STYLES, is_heldout, with_article
from scripts.embedded.compose import BACKGROUND_NAMES, Library, load_library
from scripts.embedded.data import Picture
from scripts.embedded.placement import SAY_SHARE, Placement, placement_words
from scripts.embedded.tokenizer import MAX_LENGTH, VOCABULARY, learn_bpe, write_tokenizer

_BACKGROUND_FORMS = ("on {article} {colour} background", "on {colour}", "with {article} {colour} background")
_SYNONYMS = {"tiny": "small", "big": "large"}


def caption(
    name: str, background: str | None, style: str | None = None, before: str = "", after: str = ""
) -> str:
    """The canonical caption: "a small dog face on a blue background, twemoji style"."""
    words = f"{before} {name}" if before else name
    plural = with_article(name) == name
    text = words if plural else with_article(words)
    text = f"{text} {after}" if after else text
    if background is not None:
        text += f" on {'an' if background == 'orange' else 'a'} {background} background"
    return text if style is None else f"{text}, {style} style"


@dataclass(frozen=True)
class Claim:
    """A caption and what it asserts; None where it says nothing."""

    text: str
    name: str
    background: str | None
    style: str | None
    words: str | None

    def holds(self, picture: Picture, background: str, placement: Placement) -> bool:
        """Whether the caption is true of a composed picture."""
        return (
            self.name == picture.name
            and self.background in (None, background)
            and self.style in (None, picture.style)
            and (self.words is None or _same_words(self.words, placement.before or placement.after))
        )


def _same_words(first: str, second: str) -> bool:
    return _SYNONYMS.get(first, first) == _SYNONYMS.get(second, second)


def sample_caption(
    picture: Picture, background: str, placement: Placement, rng: np.random.Generator
) -> Claim:
    """A random true caption: at times with another name, without article, background or style."""
    name = picture.name
    aliases = CONCEPTS[name]
    if aliases and rng.random() < 0.15:
        name = aliases[rng.integers(len(aliases))]
    said = rng.random() < SAY_SHARE
    before, after = (placement.before, placement.after) if said else ("", "")
    text = caption(name, None, None, before, after)
    if rng.random() < 0.15:
        text = text.removeprefix("an ").removeprefix("a ")
    colour = background if rng.random() < (0.7 if background == "white" else 0.93) else None
    if colour is not None:
        article = "an" if colour == "orange" else "a"
        form = _BACKGROUND_FORMS[int(np.searchsorted((0.7, 0.9), rng.random()))]
        text += " " + form.format(article=article, colour=colour)
    style = picture.style if rng.random() < 0.5 else None
    if style is not None:
        text += f", {style} style" if rng.random() < 0.8 else f" in {style} style"
    return Claim(text, picture.name, colour, style, before or after or None)


def sample_background(picture: Picture, weights: np.ndarray, rng: np.random.Generator) -> int:
    """Index of a random background whose combination with `picture` is not held out.

    weights: [number of backgrounds], not necessarily normalised.
    """
    p = np.cumsum(weights * _allowed(picture.name, picture.style))
    return int(np.searchsorted(p, rng.random() * p[-1], side="right"))


@cache
def _allowed(name: str, style: str) -> np.ndarray:
    return np.array([not is_heldout(name, colour, style) for colour in BACKGROUND_NAMES], dtype=float)


def heldout_combinations(library: Library) -> list[tuple[int, int]]:
    """(index into library, index of background) of every combination that no training picture shows."""
    return [
        (i, b)
        for i, row in enumerate(library.rows)
        for b, colour in enumerate(BACKGROUND_NAMES)
        if is_heldout(row.name, colour, row.style)
    ]


def tokenizer_corpus(library: Library, others: Library) -> list[str]:
    """Captions a tokenizer learns from: the concepts' often, names and keywords of all other emoji once."""
    texts = []
    for name, aliases in CONCEPTS.items():
        for alias in (name, *aliases):
            texts += [caption(alias, colour, style) for colour in BACKGROUND_NAMES for style in STYLES]
            texts += [f"{alias} {words}" for words in placement_words()]
    for row in (*library.rows, *others.rows):
        texts.append(" ".join((row.name, *row.keywords)))
    return texts


def make_tokenizer(work: Path) -> Path:
    """Learn the tokenizer from the library's captions and write `work/tokenizer`."""
    captions = tokenizer_corpus(*load_library(work))
    write_tokenizer(work / "tokenizer", *learn_bpe(captions, VOCABULARY), max_length=MAX_LENGTH)
    return work / "tokenizer"
