"""How often a CLIP picks the right words for a picture: object of 80, background of 10, style of 3."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.prompts.emoji import STYLES, concepts
from scripts.embedded.captions import caption, heldout_combinations, sample_background
from scripts.embedded.compose import BACKGROUND_NAMES, Library, compose
from scripts.embedded.placement import Placement, place, placement_words

Embed = Callable[[Tensor], Tensor]
EmbedText = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Shown:
    """Pictures in [−1, 1], [N, 3, 64, 64], with what they show; `words` is "" for the plain placement."""

    pictures: Tensor
    names: list[str]
    backgrounds: list[str]
    styles: list[str]
    words: list[str]


def show(library: Library, pairs: list[tuple[int, int]], words: list[str] | None = None) -> Shown:
    """Undamaged pictures of (index into library, index of background) pairs."""
    words = [""] * len(pairs) if words is None else words
    rows = [library.rows[i] for i, _ in pairs]
    x = compose(
        library.pictures[[i for i, _ in pairs]],
        [b for _, b in pairs],
        [place(w) if w else Placement() for w in words],
    )
    colours = [BACKGROUND_NAMES[b] for _, b in pairs]
    return Shown(x, [r.name for r in rows], colours, [r.style for r in rows], words)


def _chunks(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _picked(pictures: Tensor, texts: list[list[str]], truth: list[int], embed_text: EmbedText) -> float:
    """Share of pictures whose own true text scores highest among its texts."""
    unique = {text: k for k, text in enumerate(dict.fromkeys(text for row in texts for text in row))}
    vectors = torch.cat([embed_text(chunk) for chunk in _chunks(list(unique), 256)])
    flat = vectors[torch.tensor([[unique[text] for text in row] for row in texts])]
    best = (flat * pictures[:, None]).sum(-1).argmax(1)
    return float((best == torch.tensor(truth)).float().mean())


@torch.no_grad()
def retrieval(shown: Shown, embed: Embed, embed_text: EmbedText) -> dict[str, float]:
    """Retrieval @1 of the object (of 80), background (of 10) and style (of 3), everything else told.

    The style is asked only of pictures that have one ("" otherwise).
    """
    pictures, names = embed(shown.pictures), concepts()
    facts = list(zip(shown.names, shown.backgrounds, strict=True))
    styled = [i for i, style in enumerate(shown.styles) if style]
    questions = {
        "object": (
            range(len(facts)),
            [[caption(n, b) for n in names] for _, b in facts],
            [names.index(n) for n in shown.names],
        ),
        "background": (
            range(len(facts)),
            [[caption(n, colour) for colour in BACKGROUND_NAMES] for n, _ in facts],
            [BACKGROUND_NAMES.index(b) for b in shown.backgrounds],
        ),
        "style": (
            styled,
            [[caption(*facts[i], style) for style in STYLES] for i in styled],
            [STYLES.index(shown.styles[i]) for i in styled],
        ),
    }
    return {
        question: _picked(pictures[list(chosen)], texts, truth, embed_text)
        for question, (chosen, texts, truth) in questions.items()
    }


@torch.no_grad()
def place_retrieval(shown: Shown, embed: Embed, embed_text: EmbedText) -> float:
    """Retrieval @1 of the words for place, size, turn or motion among all such words; synonyms count once."""
    choices = [w for w in placement_words() if w not in ("tiny", "big")]
    texts = [
        [caption(n, b, None, *((w, "") if w in ("small", "large") else ("", w))) for w in choices]
        for n, b in zip(shown.names, shown.backgrounds, strict=True)
    ]
    return _picked(embed(shown.pictures), texts, [choices.index(w) for w in shown.words], embed_text)


class Retrieval:
    """The fixed picture sets on which the reward is measured."""

    def __init__(self, library: Library, train: Library, unseen: Library, count: int = 240) -> None:
        rng = np.random.default_rng(5)
        even = np.ones(len(BACKGROUND_NAMES))
        seen = [int(i) for i in rng.integers(len(train), size=count)]
        self.sets = {
            "train": show(train, [(i, sample_background(train.rows[i], even, rng)) for i in seen]),
            "held-out combinations": show(train, heldout_combinations(train)[:count]),
            "held-out renderings": show(
                unseen,
                [
                    (i, sample_background(unseen.rows[i], even, rng))
                    for i in range(len(unseen))
                    for _ in range(5)
                ],
            ),
        }
        choices = [w for w in placement_words() if w not in ("tiny", "big")]
        words = [choices[k % len(choices)] for k in range(count)]
        pairs = [(i, sample_background(train.rows[i], even, rng)) for i in seen]
        self.placed = show(train, pairs, words)

    def measure(self, embed: Embed, embed_text: EmbedText) -> dict[str, dict[str, float]]:
        """Retrieval @1 per picture set and question, and the placement words' on the train set."""
        found = {name: retrieval(shown, embed, embed_text) for name, shown in self.sets.items()}
        found["train"]["placement words"] = place_retrieval(self.placed, embed, embed_text)
        return found

    def summary(self, embed: Embed, embed_text: EmbedText) -> str:
        """`measure` in one line."""
        return "; ".join(
            f"{name}: " + " ".join(f"{question} {value:.2f}" for question, value in values.items())
            for name, values in self.measure(embed, embed_text).items()
        )
