"""Differences of methods in a record, paired by prompt and seed: docs/estimators.md.

    python -m scripts.difference results/reference/embedded rlr-balanced:truncated_bp rlr-ho:ddpo

For each pair, and each workload that both took part in: the first method's mean difference to the second in
the trained reward, with its standard error, its 95 % interval and its p, alone and adjusted for all lines
(Holm).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.base.errors import BenchError
from bench.protocol.measures import over
from bench.protocol.reading import Record, read_record
from bench.report.stats import Estimate, adjusted
from bench.report.tables import estimates, intervals, probability

Pair = tuple[str, str]
HEADERS = ("workload", "difference ± SE", "95 % interval", "p", "Holm's p")


def main() -> None:
    """Print a table of all pairs. Exits with a message for a record or a method that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="METHOD:OTHER")
    asked = parser.parse_args()
    try:
        record = read_record(asked.record)
        pairs = [_pair(text, record) for text in dict.fromkeys(asked.pairs)]
    except BenchError as error:
        parser.error(str(error))
    print("\n".join(table(pairs, _differences(record, pairs))))


def _pair(text: str, record: Record) -> Pair:
    one, _, other = text.partition(":")
    if not one or not other:
        raise BenchError(f"'{text}': give two methods with a colon between them, like rlr-ho:ddpo")
    known = record.suite.methods
    for method in (one, other):
        if method not in known:
            raise BenchError(f"{record.folder} has no method '{method}'; it has {', '.join(known)}")
    return one, other


def _differences(record: Record, pairs: Sequence[Pair]) -> list[tuple[Pair, str, Estimate]]:
    """(pair, workload, difference) wherever both methods took part."""
    seeds, found = record.suite.seeds, []
    for pair in pairs:
        for name, tables in record.tables.items():
            if set(pair) <= set(record.suite.takes_part(name)):
                reward = record.suite.workloads[name].reward
                found.append((pair, name, over(tables, *pair, reward, seeds)))
    return found


def table(pairs: Sequence[Pair], found: Sequence[tuple[Pair, str, Estimate]]) -> list[str]:
    """Aligned lines: a heading for each pair, below it the workloads."""
    differences = [difference for _, _, difference in found]
    cells = [HEADERS] + [
        # One by one: each workload has a reward, and so a scale, of its own.
        (
            name,
            *estimates("", [d], signed=True).cells,
            *intervals("", [d]).cells,
            probability(d.p),
            probability(p),
        )
        for (_, name, d), p in zip(found, adjusted(differences), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *rows = [
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]
    lines = [header]
    for pair in pairs:
        own = [text for text, (of, *_) in zip(rows, found, strict=True) if of == pair]
        lines += [" − ".join(pair), *(own or ["  there is no workload that both took part in"])]
    return lines


if __name__ == "__main__":
    main()
