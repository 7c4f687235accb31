"""Scenes with a text that is to be read in the picture, for models that draw letters. Pure Python.

A prompt puts a text in double quotes into a scene: 'a neon sign in a dark street that says "OPEN"'. Scenes
and texts are this project's own, and everyday words. Texts are held out, in every scene, so what is evaluated
is the writing of texts that training never asked for; training and held-out texts are of the same kinds: one
word, two words, three words, and words with numbers.
"""

from zlib import crc32

SCENES: tuple[str, ...] = (
    "a sign that says",
    "a neon sign in a dark street that says",
    "a wooden sign above a shop door that says",
    "a billboard beside a road that says",
    "a chalkboard in a café that says",
    "a poster on a brick wall that says",
    "a white T-shirt that says",
    "a coffee mug that says",
    "a birthday cake with icing that says",
    "a paper note on a fridge that says",
    "a banner over a village square that says",
    "a book whose cover says",
)
TRAINED: tuple[str, ...] = (
    *("OPEN", "SALE", "EXIT", "WELCOME", "COFFEE", "LIBRARY", "BAKERY", "MUSIC", "GARDEN", "SUMMER"),
    *("PARKING", "TICKETS", "FLOWERS", "CHOCOLATE", "ADVENTURE", "TELEPHONE", "STRAWBERRY"),
    *("GOOD MORNING", "THANK YOU", "KEEP LEFT", "FRESH BREAD", "WET PAINT", "LOST CAT", "NO SMOKING"),
    *("HAPPY BIRTHDAY", "GRAND OPENING", "WINTER MARKET", "STAY CURIOUS"),
    *("BACK IN FIVE", "MIND THE STEP", "HOME SWEET HOME", "PLEASE RING TWICE", "DO NOT DISTURB"),
    *("ROOM 12", "TRACK 9", "1 EURO", "SINCE 1924", "EXIT 47"),
)
HELD_OUT: tuple[str, ...] = (
    *("CLOSED", "HOTEL", "MUSEUM", "PIZZA", "HARBOUR", "LEMONADE"),
    *("GOOD NIGHT", "WET FLOOR", "FRESH FISH", "SPRING FAIR"),
    *("OUT OF ORDER", "MAKE SOME NOISE"),
    *("ROOM 38", "SINCE 1867"),
)


def prompts(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Every scene with every text. Any prefix is a fair sample: the order is by a CRC of the prompt."""
    every = [f'{scene} "{text}"' for scene in SCENES for text in texts]
    return tuple(sorted(every, key=lambda prompt: (crc32(prompt.encode()), prompt)))
