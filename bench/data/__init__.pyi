from .digests import HasDigest
from .need import HasNeeds, HasRandom, HasSource, Need, check_source, needs_of
from .sources import find, locate

__all__ = [
    "HasDigest",
    "HasNeeds",
    "HasRandom",
    "HasSource",
    "Need",
    "check_source",
    "find",
    "locate",
    "needs_of",
]
