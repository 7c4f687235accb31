"""Short texts that a user types: sizes, times, lists of names; and how sizes are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.base.errors import BenchError

GB, MIB, GIB = 10**9, 2**20, 2**30  # bytes
SIZES = {"MB": 10**6, "GB": GB, "TB": 10**12, "MIB": MIB, "GIB": GIB, "TIB": 2**40}
TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NUMBER = r"([0-9]+(?:\.[0-9]+)?)"


def size(text: str, flag: str) -> int:
    """`40GB`, `37.5GiB`, `800MB` → bytes. Raises BenchError that names the flag."""
    found = re.fullmatch(rf"{NUMBER}\s*([KMGT]I?B)", text.strip().upper())
    if not found or found[2] not in SIZES or float(found[1]) == 0:
        raise BenchError(f"{flag} {text}: expected a size such as 40GB (10^9 bytes), 24GiB (2^30) or 800MB")
    return int(float(found[1]) * SIZES[found[2]])


def duration(text: str, flag: str) -> float:
    """`90s`, `5m`, `24h`, `2d` or a number of seconds → seconds. Raises BenchError that names the flag."""
    found = re.fullmatch(rf"{NUMBER}([smhd]?)", text.strip())
    if not found or float(found[1]) == 0:
        raise BenchError(
            f"{flag} {text}: expected a time such as 90s, 5m or 2h (s, m, h, d, or a number of seconds)"
        )
    return float(found[1]) * TIMES[found[2] or "s"]


MOST = 10_000  # numbers of one text


def numbers(text: str, where: str) -> list[int]:
    """`0-4`, `0,3` and `0-2,7` → whole numbers from 0 up, in the order typed.

    Raises BenchError that begins with `where`: for other texts, for a range that runs backwards, for a number
    that is there twice, and for more than 10,000 of them.
    """
    found: list[int] = []
    for part in names(text):
        ends = re.fullmatch("([0-9]+)(?:-([0-9]+))?", part)
        if ends is None:
            raise BenchError(f"{where}: '{part}' is no whole number or range: write 0,1,2, or 0-4, or 0-2,7")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if last < first:
            raise BenchError(f"{where}: the range {part} runs backwards: write {last}-{first}")
        if len(found) + last - first >= MOST:
            raise BenchError(f"{where}: more than {MOST:,} numbers")
        found += range(first, last + 1)
    if not found:
        raise BenchError(f"{where}: names no number: write 0,1,2, or 0-4, or 0-2,7")
    if (again := repeated(found)) is not None:
        raise BenchError(f"{where}: {again} is there twice")
    return found


def repeated(numbers: Sequence[int]) -> int | None:
    """The first number that was there before; None if there is none."""
    seen = set[int]()
    return next((n for n in numbers if n in seen or seen.add(n)), None)


def gigabytes(count: float) -> str:
    """10^9 bytes, as graphics cards are sold and the paper counts."""
    return f"{count / GB:.1f}" if abs(count) >= GB else f"{count / GB:.2g}"


def readable_size(count: float) -> str:
    """`3.9 GB`, decimal as disks and hubs count."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def names(text: str | None) -> list[str]:
    """Names with commas between them; none of an empty text or of None."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
