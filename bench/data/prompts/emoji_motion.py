"""How an object moves through a clip, the words that say so, and the prompts built from them. No torch.

A clip shows one object over a plain background in `FRAMES` frames. It moves in one of four directions, grows,
shrinks or turns, at an even pace: "a fox moving left on a blue background", "a rocket growing on a black
background". What is held out in pictures is held out in clips (`bench.data.prompts.emoji`), and so are
about 8 % of the (object, motion) pairs, again by a CRC of the words.
"""

import math
from dataclasses import dataclass
from zlib import crc32

from bench.data.prompts.emoji import BACKGROUNDS, CONCEPTS, is_heldout, prompt, with_article

FRAMES = 8
REACH = 0.8
"""Of a motion over the whole clip: half pictures of a shift, or the logarithm of a growth."""
TURN = math.radians(100)
"""Of a turn over the whole clip, radians."""


@dataclass(frozen=True)
class Motion:
    """Over a whole clip: shift in half pictures (x to the right, y down), logarithm of growth, turn
    counter-clockwise in radians."""

    x: float = 0.0
    y: float = 0.0
    growth: float = 0.0
    turn: float = 0.0


MOTIONS: dict[str, Motion] = {
    "moving left": Motion(x=-REACH),
    "moving right": Motion(x=REACH),
    "moving up": Motion(y=-REACH),
    "moving down": Motion(y=REACH),
    "growing": Motion(growth=REACH),
    "shrinking": Motion(growth=-REACH),
    "turning left": Motion(turn=TURN),
    "turning right": Motion(turn=-TURN),
}


def motion_of(text: str) -> str | None:
    """The words of the motion that a prompt names, if it names one."""
    return next((words for words in MOTIONS if words in text), None)


def is_heldout_clip(concept: str, background: str, motion: str, style: str | None = None) -> bool:
    """Whether no training clip shows the combination."""
    return is_heldout(concept, background, style) or crc32(f"motion/{concept}/{motion}".encode()) % 1000 < 80


def clip_prompt(concept: str, background: str, motion: str) -> str:
    """The plain prompt: "a fox moving left on a blue background"."""
    return prompt(concept, background).replace(with_article(concept), f"{with_article(concept)} {motion}", 1)


def clip_combinations(heldout: bool) -> list[tuple[str, str, str]]:
    """(concept, background, motion) with or without the held-out ones, in the order of the prompts.

    The order looks random and never changes: by a CRC of the prompt.
    """
    found = [
        (concept, background, motion)
        for concept in CONCEPTS
        for background in BACKGROUNDS
        for motion in MOTIONS
        if is_heldout_clip(concept, background, motion) == heldout
    ]
    return sorted(found, key=lambda c: (crc32(clip_prompt(*c).encode()), clip_prompt(*c)))


def train_clip_prompts() -> list[str]:
    """Prompts of clips that may have been trained on; any prefix of the list is a fair sample."""
    return [clip_prompt(*combination) for combination in clip_combinations(heldout=False)]


def heldout_clip_prompts() -> list[str]:
    """Prompts of clips that training never shows; any prefix of the list is a fair sample."""
    return [clip_prompt(*combination) for combination in clip_combinations(heldout=True)]
