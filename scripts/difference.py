"""The difference of two methods in a record, paired by prompt and seed: docs/estimators.md.

    python -m scripts.difference results/reference/embedded rlr-balanced truncated_bp

For each workload that both took part in: the mean difference in the trained reward, with its interval and p.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.protocol.measures import over
from bench.protocol.reading import read_record


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("methods", nargs=2, metavar="METHOD")
    asked = parser.parse_args()
    one, other = asked.methods
    record = read_record(asked.record)
    for name, tables in record.tables.items():
        workload = record.suite.workloads[name]
        if {one, other} <= set(record.suite.takes_part(name)):
            d = over(tables, one, other, workload.reward, record.suite.seeds)
            print(
                f"{name:14} {d.mean:+.4f} ± {d.se:.4f}   95 %: {d.low:+.4f} … {d.high:+.4f}   p = {d.p:.3f}"
            )


if __name__ == "__main__":
    main()
