"""Labels of a classifier or a detector, by name.

With random weights nothing is known by name, so a label's number is a checksum of it, as a word's is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from bench.base.errors import BenchError, did_you_mean


def label_number(labels: Mapping[str, int], name: str, hashed: bool, setting: str) -> int:
    """The model's number of a label, whatever its case. hashed: one out of as many, by a checksum.

    setting: names the label in messages. Raises BenchError for one that the model does not know.
    """
    if hashed:
        return zlib.crc32(name.lower().encode()) % len(labels)
    lower = {label.lower(): number for label, number in labels.items()}
    if name.lower() not in lower:
        known = sorted(lower)
        raise BenchError(
            f"{setting}: the model knows no '{name}'.{did_you_mean(name.lower(), known)} It knows "
            f"{len(known)} labels, such as {', '.join(known[:5])}"
        )
    return lower[name.lower()]
