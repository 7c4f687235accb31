"""How often a random walk would be taken for a method: docs/protocol.md.

    python -m bench run --methods random-direction --seeds 0-19 --out results/null --no-report
    python -m scripts.false_claims results/null

Splits the seeds at random into a "method" and a null row of so many seeds each, and counts at which p < 0.05
the report would claim a difference; and, as a comparison, how many single runs lie more than three standard
errors over prompts from the base model, which is the rule that counted walks as gains.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from bench.report.groups import contests
from bench.report.load import load
from bench.report.stats import estimate, side_by_side
from bench.report.tables import CLEAR

SPLITS = 1000


def main() -> None:
    """Print both shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    (contest,) = contests(load(parser.parse_args().directory))
    (group,) = contest.groups
    runs, base = group.scores(contest.reward), contest.base_scores(contest.reward)
    single = [estimate(side_by_side([run], base), interval=False) for run in runs]
    walked = np.mean([abs(found.mean) > 3 * found.se for found in single])
    print(f"{len(runs)} runs of one seed: {walked:.0%} beyond three standard errors over prompts")
    rng = random.Random(0)
    for seeds in (2, 3, 5):
        claims = []
        for _ in range(SPLITS):
            chosen = rng.sample(runs, 2 * seeds)
            differences = [a.sub(b).dropna() for a, b in zip(chosen[:seeds], chosen[seeds:], strict=True)]
            claims.append(estimate(side_by_side(differences)).p < CLEAR)
        print(f"{seeds} seeds against {seeds}: {np.mean(claims):.1%} of {SPLITS} splits with p < {CLEAR:g}")


if __name__ == "__main__":
    main()
