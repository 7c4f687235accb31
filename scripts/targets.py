"""Targets of workloads by one rule, from the tuning trials of a record: docs/protocol.md, "Workloads".

    python -m scripts.targets results/reference/embedded

The target is the base model's score on the reported prompts and half of the largest gain of a published
baseline, a trial on the tuning prompts against the base model there.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.base import units
from bench.base.errors import BenchError
from bench.protocol.reading import Tables, Trial, read_record
from bench.protocol.workload import direction

BASELINES = "full_bp,truncated_bp,alignprop,vader,refl,ddpo,reinforce,zo-antithetic"


@dataclass(frozen=True)
class Pilots:
    """What a target follows from. reported, tuning: the base model's scores on these prompts; best: the best
    trial of a baseline. None: the record does not have it."""

    reported: float
    tuning: float | None
    best: Trial | None

    @property
    def gain(self) -> float | None:
        """Of the best trial over the base model, in the reward's unit."""
        if self.best is None or self.best.score is None or self.tuning is None:
            return None
        return self.best.score - self.tuning

    def target(self, sign: int) -> float | None:
        """The target, to three significant digits; None if nothing is gained. sign: 1 if more is better."""
        if self.gain is None or sign * self.gain <= 0:
            return None
        return float(f"{self.reported + self.gain / 2:.3g}")


def pilots(tables: Tables, reward: str, baselines: Collection[str]) -> Pilots:
    """What the tables of one workload say of the baselines' trials."""
    trials = [one for one in tables.trials if one.method in baselines and one.score is not None]
    best = max(trials, key=lambda one: direction(reward) * (one.score or 0.0), default=None)
    return Pilots(tables.base(reward), None if tables.chosen is None else tables.chosen.base, best)


def main() -> None:
    """Print a line for each workload of a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--baselines", default=BASELINES, help=f"names (default: {BASELINES})")
    asked = parser.parse_args()
    try:
        record, baselines = read_record(asked.record), units.names(asked.baselines)
    except BenchError as error:
        parser.error(str(error))
    for name, load in record.suite.workloads.items():
        if name not in record.tables:
            print(f"{name}: not in the record")
            continue
        found = pilots(record.tables[name], load.reward, baselines)
        target = found.target(direction(load.reward))
        base = "not in the record" if found.tuning is None else f"{found.tuning:.5g}"
        best = "none" if found.best is None else f"{found.best.score:.5g} ({found.best.name})"
        gain = "unknown" if found.gain is None else f"{found.gain:.3g}"
        wanted = "none" if target is None else f"{target:g}"
        print(f"{name}: base {found.reported:.5g} on reported prompts, {base} on tuning prompts;")
        print(f"  best trial of a baseline {best}, gain {gain}; target {wanted}")


if __name__ == "__main__":
    main()
