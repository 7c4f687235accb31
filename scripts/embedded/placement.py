"""Where an object lies in a picture, how large and how turned, and the words that say so. No torch.

A bit more than half of the pictures show the object large and in the middle. The others move, scale or
turn it; most of their captions say so ("a small fox", "a fox at the top right", "a fox tilted left", "a
fox falling"). Motion words stand for the moment of a motion: the object off centre in that direction,
slightly turned.
"""

from dataclasses import dataclass

import numpy as np

from bench.data.prompts.emoji_motion import FRAMES, MOTIONS

PLAIN_SHARE = 0.55
"""Share of pictures with the object large and in the middle."""
SAY_SHARE = 0.85
"""Share of the other pictures whose caption says what is different."""


@dataclass(frozen=True)
class Placement:
    """Similarity transform of the object: scale (1 = fills the picture), angle in radians counter-clockwise,
    shift (x to the right, y down) in half pictures; `before` and `after` are the words around its name."""

    scale: float = 1.0
    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0
    before: str = ""
    after: str = ""


_SIDES: dict[str, tuple[float, float]] = {
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "at the top left": (-1, -1),
    "at the top right": (1, -1),
    "at the bottom left": (-1, 1),
    "at the bottom right": (1, 1),
}
_TURNS: dict[str, tuple[float, float]] = {
    # words → (mean angle, half range), degrees counter-clockwise
    "tilted left": (35, 8),
    "tilted right": (-35, 8),
    "upside down": (180, 6),
}
_MOTIONS: dict[str, tuple[float, float, float]] = {
    # words → (direction x, direction y, angle in degrees)
    "flying up": (0, -1, 14),
    "rising": (0, -1, 0),
    "falling": (0, 1, -24),
    "moving left": (-1, 0, 12),
    "moving right": (1, 0, -12),
}
_SIZES: tuple[str, ...] = ("small", "tiny", "large", "big")


def placement_words() -> list[str]:
    """Every phrase a caption can use for place, size, turn or motion."""
    return [*_SIDES, *_SIZES, *_TURNS, *_MOTIONS]


def _jitter(rng: np.random.Generator, scale: float) -> Placement:
    """Small random changes around the middle; part of every placement."""
    return Placement(
        scale=scale * rng.uniform(0.94, 1.04),
        angle=rng.uniform(-0.07, 0.07),
        x=rng.uniform(-0.05, 0.05),
        y=rng.uniform(-0.05, 0.05),
    )


def _moved(base: Placement, dx: float, dy: float, degrees: float, before: str, after: str) -> Placement:
    angle = base.angle + float(np.deg2rad(degrees))
    return Placement(base.scale, angle, base.x + dx, base.y + dy, before, after)


def sample_placement(rng: np.random.Generator) -> Placement:
    """Draw one placement. The words are always set; whether a caption uses them is the caption's choice."""
    kind = rng.random()
    if kind < PLAIN_SHARE:
        return _jitter(rng, 1.0)
    part = (kind - PLAIN_SHARE) / (1 - PLAIN_SHARE)
    if part < 0.35:
        words = str(rng.choice(list(_SIDES)))
        (dx, dy), reach = _SIDES[words], rng.uniform(0.30, 0.40)
        return _moved(_jitter(rng, 0.62), dx * reach, dy * reach, 0, "", words)
    if part < 0.55:
        words = str(rng.choice(_SIZES))
        scale = 0.5 if words in ("small", "tiny") else 1.3
        return _moved(_jitter(rng, scale), 0, 0, 0, words, "")
    if part < 0.78:
        words = str(rng.choice(list(_TURNS)))
        mean, half = _TURNS[words]
        return _moved(_jitter(rng, 0.85), 0, 0, mean + half * rng.uniform(-1, 1), "", words)
    words = str(rng.choice(list(_MOTIONS)))
    dx, dy, degrees = _MOTIONS[words]
    reach = rng.uniform(0.18, 0.34)
    return _moved(_jitter(rng, 0.70), dx * reach, dy * reach, degrees, "", words)


def place(words: str) -> Placement:
    """The placement without jitter, exactly as `words` say; for evaluation and contact sheets."""
    if words in _SIDES:
        dx, dy = _SIDES[words]
        return _moved(Placement(scale=0.62), 0.35 * dx, 0.35 * dy, 0, "", words)
    if words in _SIZES:
        return Placement(scale=0.5 if words in ("small", "tiny") else 1.3, before=words)
    if words in _TURNS:
        return _moved(Placement(scale=0.85), 0, 0, _TURNS[words][0], "", words)
    if words in _MOTIONS:
        dx, dy, degrees = _MOTIONS[words]
        return _moved(Placement(scale=0.70), 0.26 * dx, 0.26 * dy, degrees, "", words)
    raise ValueError(f"unknown words {words!r}; known: {', '.join(placement_words())}")


def sample_clip(words: str, rng: np.random.Generator, frames: int = FRAMES) -> list[Placement]:
    """The object's placement in every frame, at a random place, size and pace."""
    motion = MOTIONS[words]
    turning, growing = motion.turn != 0, motion.growth != 0
    pace = rng.uniform(0.85, 1.15)
    scale = rng.uniform(0.8, 0.95) if turning else rng.uniform(0.55, 0.65)
    x, y = rng.uniform(-0.08, 0.08, size=2) if turning or growing else rng.uniform(-0.15, 0.15, size=2)
    angle = rng.uniform(-0.15, 0.15)
    along = pace * np.linspace(-0.5, 0.5, frames)
    return [
        Placement(
            scale=float(scale * np.exp(u * motion.growth)),
            angle=float(angle + (u + pace / 2) * motion.turn),  # it starts upright
            x=float(x + u * motion.x),
            y=float(y + u * motion.y),
            after=words,
        )
        for u in along
    ]
