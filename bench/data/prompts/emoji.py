"""The vocabulary of the embedded model and the prompts built from it. Pure Python: no torch, no numpy.

A prompt names an object, a plain background and perhaps a style: "a dog face on a blue background,
twemoji style". Some combinations are held out: no training picture and no training caption shows them,
neither for the image model nor for the reward. What is held out follows from a CRC of the words, so it
never changes:

- about 8 % of the (object, background) pairs, in every style;
- beyond those, about 4 % of the (object, background, style) triples.
"""

from zlib import crc32

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (24, 24, 28),
    "gray": (150, 150, 155),
    "red": (226, 62, 62),
    "orange": (247, 150, 60),
    "yellow": (250, 220, 90),
    "green": (92, 180, 92),
    "blue": (82, 138, 226),
    "purple": (152, 100, 200),
    "pink": (246, 165, 195),
}
"""Name → 8-bit sRGB colour."""

STYLES: tuple[str, ...] = ("noto", "twemoji", "fluent")

CONCEPTS: dict[str, tuple[str, ...]] = {
    # name in Unicode CLDR (English) → other names that captions use now and then
    "red apple": ("apple",),
    "banana": (),
    "strawberry": (),
    "watermelon": (),
    "grapes": (),
    "cherries": (),
    "pineapple": (),
    "lemon": (),
    "tomato": (),
    "avocado": (),
    "eggplant": ("aubergine",),
    "carrot": (),
    "broccoli": (),
    "mushroom": (),
    "pizza": (),
    "hamburger": ("burger",),
    "french fries": ("fries",),
    "doughnut": ("donut",),
    "cookie": (),
    "birthday cake": ("cake",),
    "dog face": ("dog",),
    "cat face": ("cat",),
    "tiger face": (),
    "lion": (),
    "fox": (),
    "bear": (),
    "panda": (),
    "koala": (),
    "monkey face": ("monkey",),
    "pig face": ("pig",),
    "cow face": ("cow",),
    "rabbit face": ("rabbit",),
    "frog": (),
    "unicorn": (),
    "elephant": (),
    "penguin": (),
    "chicken": (),
    "owl": (),
    "turtle": (),
    "fish": (),
    "whale": (),
    "octopus": (),
    "crab": (),
    "snail": (),
    "lady beetle": ("ladybug",),
    "honeybee": ("bee",),
    "butterfly": (),
    "sunflower": (),
    "rose": (),
    "tulip": (),
    "cactus": (),
    "evergreen tree": ("fir tree",),
    "automobile": ("car",),
    "bus": (),
    "fire engine": ("fire truck",),
    "police car": (),
    "bicycle": ("bike",),
    "rocket": (),
    "airplane": ("plane",),
    "helicopter": (),
    "sailboat": (),
    "house": (),
    "star": (),
    "sun": (),
    "crescent moon": ("moon",),
    "rainbow": (),
    "fire": (),
    "snowman": (),
    "red heart": ("heart",),
    "grinning face": ("smiley",),
    "ghost": (),
    "robot": (),
    "soccer ball": ("football",),
    "basketball": (),
    "guitar": (),
    "balloon": (),
    "umbrella": (),
    "crown": (),
    "gem stone": ("gem",),
    "light bulb": (),
}

_NO_ARTICLE = frozenset({"grapes", "cherries", "french fries", "fries", "broccoli", "fire"})


def concepts() -> list[str]:
    """Names of the objects the model knows, in a fixed order."""
    return list(CONCEPTS)


def with_article(name: str) -> str:
    """`name` with its indefinite article: "an owl", "a dog face", "grapes"."""
    if name in _NO_ARTICLE:
        return name
    return f"an {name}" if name[0] in "aeio" or name == "umbrella" else f"a {name}"


def is_heldout(concept: str, background: str, style: str | None = None) -> bool:
    """Whether the combination is kept out of all training; `style=None` asks for the pair in every style."""
    if crc32(f"pair/{concept}/{background}".encode()) % 1000 < 80:
        return True
    return style is not None and crc32(f"triple/{concept}/{background}/{style}".encode()) % 1000 < 40


def prompt(concept: str, background: str, style: str | None = None) -> str:
    """The plain prompt of a combination, e.g. "a dog face on a blue background, twemoji style"."""
    base = f"{with_article(concept)} on {'an' if background == 'orange' else 'a'} {background} background"
    return base if style is None else f"{base}, {style} style"


def combinations(heldout: bool) -> list[tuple[str, str, str | None]]:
    """(concept, background, style or None) with or without the held-out ones, in the order of the prompts.

    The order looks random and never changes: by a CRC of the prompt.
    """
    found = [
        (concept, background, style)
        for concept in CONCEPTS
        for background in BACKGROUNDS
        for style in (None, *STYLES)
        if is_heldout(concept, background, style) == heldout
    ]
    return sorted(found, key=lambda c: (crc32(prompt(*c).encode()), prompt(*c)))


def train_prompts() -> list[str]:
    """Prompts whose combination was trained on; any prefix of the list is a fair sample."""
    return [prompt(*combination) for combination in combinations(heldout=False)]


def heldout_prompts() -> list[str]:
    """Prompts whose combination never occurs in training; any prefix of the list is a fair sample."""
    return [prompt(*combination) for combination in combinations(heldout=True)]
