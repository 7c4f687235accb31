"""Training seconds until the held-out reward has risen by a given amount, or to a score, per method.

    python -m bench run --config race
    python -m examples.seconds_to_target results/race --gain 0.02
    python -m bench run --config table7
    python -m examples.seconds_to_target results/table7 --score 5.4

A run counts from its first evaluation that is at least base + gain, or the score; a run that never gets there
counts as slower than all its training. Evaluation time is not training time.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate

from bench.report.load import CellResults, load
from bench.report.target import first_crossing, mean_score


def summary(cells: Sequence[CellResults], reward: str, target: float) -> list[object]:
    """One line of the table: reached, seconds with a 95 % interval over seeds, steps, last reward."""
    found = [first_crossing(cell, reward, target) for cell in cells]
    reached = [one for one in found if one is not None]
    spent = [float(cell.metrics["seconds"].iloc[-1]) for cell in cells]
    last = [mean_score(cell, reward, cell.eval_steps[-1]) for cell in cells]
    if len(reached) < len(cells):
        time = f"> {min(spent):.0f} in {len(cells) - len(reached)} of {len(cells)}"
    else:
        time = interval([seconds for seconds, _ in reached], ".0f")
    steps = ", ".join("–" if one is None else str(one[1]) for one in found)
    return [cells[0].method, f"{len(reached)}/{len(cells)}", time, steps, interval(last, ".3f")]


def interval(values: Sequence[float], digits: str) -> str:
    """Mean and Student's 95 % interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:{digits}}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:{digits}} ({mean - half:{digits}} to {mean + half:{digits}})"


def main() -> None:
    """Print the table of a results directory."""
    parser = argparse.ArgumentParser(description="Training seconds until the held-out reward has risen.")
    parser.add_argument("results", type=Path)
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument("--gain", type=float, default=0.02, help="of the held-out reward over the base model's")
    aim.add_argument("--score", type=float, help="the held-out reward itself")
    options = parser.parse_args()
    cells = [cell for cell in load(options.results).cells if cell.done]
    bases = [cell for cell in cells if not cell.training]
    trained = [cell for cell in cells if cell.training]
    if not (bases and trained):
        parser.error(f"{options.results}: no finished runs beside a finished base model yet")
    base = bases[0]
    reward = trained[0].training["reward"]["name"]
    start = mean_score(base, reward, 0)
    target = start + options.gain if options.score is None else options.score
    methods = dict.fromkeys(cell.method for cell in trained)
    rows = [summary([c for c in trained if c.method == m], reward, target) for m in methods]
    print(f"held-out {reward}: base {start:.3f}, target {target:.3f}\n")
    headers = ["method", "reached", "seconds (95 %)", "steps, by seed", f"{reward} at the end (95 %)"]
    print(tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    main()
