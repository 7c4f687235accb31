"""What the half-order term adds, all else being equal: docs/estimators.md.

    python -m scripts.half_order results/reference/embedded --out results/half-order

Methods of a record differ in what tuning chose for them, and in more than their estimators. Here the tuned
method and a control have the same settings, seeds, budget, prompts and noise:

- rlr-balanced against truncated_bp with its learning rate and first-order steps: with and without the term.
- rlr-ho against reinforce with its learning rate, samples and baseline and without clipping: blocks in the
  noisy part of the chain, the rest of it without noise, against noise and likelihood ratios at every step.

Runs every final run of these methods again, beside its control, on the record's workloads; what is there is
not run again. Prints the paired differences in the trained reward, p adjusted by Holm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.base.errors import BenchError
from bench.base.layers import Tree
from bench.experiment.overrides import Override
from bench.experiment.request import Experiment
from bench.experiment.resolve import resolve
from bench.protocol.reading import Run, read_record
from bench.protocol.workload import workload
from bench.report.load import load
from bench.report.stats import Estimate, adjusted, by_picture, estimate, side_by_side
from bench.report.tables import estimates, intervals, probability
from bench.run import experiment
from bench.run.process import HowToRun

Pair = tuple[str, str]
HEADERS = ("workload", "difference ± SE", "95 % interval", "p", "Holm's p")


def truncated(settings: Tree) -> Tree:
    """Truncated backpropagation with rlr-balanced's settings."""
    return {"train": settings["train"], "k": settings["fo_steps"]}


def reinforce(settings: Tree) -> Tree:
    """REINFORCE with rlr-ho's settings, but for the part of the chain where it has noise."""
    return {"train": {**settings["train"], "clip_norm": None}, "baseline": "loo_prompt"}


CONTROLS: dict[str, tuple[str, Callable[[Tree], Tree]]] = {
    "rlr-balanced": ("truncated_bp", truncated),
    "rlr-ho": ("reinforce", reinforce),
}


def main() -> int:
    """Run what is left and print a line for each workload and pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/half-order"))
    parser.add_argument("--jobs", type=int, default=2)
    asked, console = parser.parse_args(), Console()
    try:
        record = read_record(asked.record)
    except BenchError as error:
        parser.error(str(error))
    lines = list[tuple[Pair, str, Estimate]]()
    for name, tables in record.tables.items():
        for method in (m for m in CONTROLS if m in record.suite.takes_part(name)):
            runs = [run for run in tables.of(method) if run.settings is not None]
            out = asked.out / name
            what, pairs = planned(name, method, runs, out)
            ended = experiment.run(console, experiment.plan(what, force=False), asked.jobs, HowToRun(1, None))
            ended.tell(console)
            if ended.code:
                return ended.code
            reward = record.suite.workloads[name].reward
            lines.append(((method, CONTROLS[method][0]), name, _difference(out, pairs, reward)))
    print("\n".join(table(list(dict.fromkeys(pair for pair, *_ in lines)), lines)))
    return 0


def planned(
    name: str, method: str, tuned: Sequence[Run], out: Path
) -> tuple[Experiment, list[tuple[str, str]]]:
    """All runs of a method and its control on a workload, and their cells, pair by pair."""
    origin, load_of = workload(name)
    control, of = CONTROLS[method]
    runs, pairs = [], []
    for run in tuned:
        seed, settings, pair = run.seed or 0, run.settings or {}, []
        for one, own in ((method, settings), (control, of(settings))):
            drawn = Override(f"settings of {method}", {one: own})
            runs.append(load_of.combination(origin, False, (one,), seed, drawn))
            pair.append(resolve(runs[-1])[-1].id)
        pairs.append((pair[0], pair[1]))
    return Experiment(load_of.request([method, control]), runs, load_of.overrides(origin, False), out), pairs


def _difference(out: Path, pairs: list[tuple[str, str]], reward: str) -> Estimate:
    """Of finished pairs, by prompt and seed."""
    cells = {cell.id: cell for cell in load(out).cells}

    def scores(cell: str) -> pd.Series:
        rows = cells[cell].evals
        last = (rows["reward"] == reward) & (rows["step"] == rows["step"].max())
        return by_picture(rows.loc[last])

    return estimate(side_by_side([scores(one).sub(scores(other)) for one, other in pairs]))


def table(pairs: Sequence[Pair], found: Sequence[tuple[Pair, str, Estimate]]) -> list[str]:
    """Aligned lines: a heading for each pair, below it the workloads; p alone, and adjusted for all lines."""
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
    raise SystemExit(main())
