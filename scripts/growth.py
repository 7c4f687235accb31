"""How a step's cost grows with T, batch, h and rank, and a run's with the number of its cells.

    python -m scripts.growth [--rounds 3]

Processor seconds of one optimizer step on the embedded model, on one thread, with everything but one setting
at its default; the median of the rounds, in which all settings take turns. Then those of whole runs with
cells of one step each, start-up included.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time

import torch

from bench.engine.batch import Batch
from bench.experiment.choices import load_reward
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.measure.cost.step import Subject, step, subject_of, trained
from bench.run.load import load_chain
from scripts.processor_seconds import processor_seconds

PROMPTS = ("a red heart", "a cat face", "a slice of pizza", "a rocket")
METHODS = ("truncated_bp", "full_bp", "ddpo", "zo", "rlr")
SETTINGS = {
    "T": ("model.steps", (10, 20, 40)),
    "batch": ("train.batch_size", (2, 4, 8, 16)),
    "rank": ("model.lora.rank", (4, 16, 64)),
}
H = (0, 1, 2, 4)
CELLS = (1, 2, 4, 8)
CHEAP = ("eval.prompts=3", "eval.images_per_prompt=1", "eval.rewards=[]", "model.steps=2")


def subject(method: str, *settings: str) -> Subject:
    """A cell's model, reward, engine and optimizer, with the graphs that a training keeps."""
    options = Options(methods=method, model="tiny", settings=settings)
    (cell,) = [c for c in resolve_all(build(options).combinations) if c.config.training is not None]
    training, device = trained(cell.config), torch.device("cpu")
    chain = load_chain(cell.config.model.config, device)
    found = subject_of(cell.config, training, chain, load_reward(training.reward, device))
    found.engine.graphs.keep = training.train.graphs
    return found


def seconds(made: Subject, number: int) -> float:
    """Of one step."""
    size = made.train.batch
    prompts = tuple(itertools.islice(itertools.cycle(PROMPTS), size))
    before = time.process_time()
    step(made, Batch(tuple(sorted(prompts)), number))
    return time.process_time() - before


def medians(made: dict[object, Subject], rounds: int) -> list[str]:
    """Of each, as they take turns; the first round, which warms up, does not count."""
    taken: dict[object, list[float]] = {key: [] for key in made}
    for number in range(rounds + 1):
        for key, one in made.items():
            taken[key].append(seconds(one, number))
    return [f"{statistics.median(values[1:]):.2f}" for values in taken.values()]


def steps(rounds: int) -> None:
    """Print the cost of steps."""
    for name, (setting, values) in SETTINGS.items():
        print(f"\n| {name} | {' | '.join(map(str, values))} |\n|---|{'---|' * len(values)}")
        for method in METHODS:
            found = medians({value: subject(method, f"{setting}={value}") for value in values}, rounds)
            print(f"| {method} | {' | '.join(found)} |", flush=True)
    print(f"\n| h | {' | '.join(map(str, H))} |\n|---|{'---|' * len(H)}")
    found = medians({h: subject("rlr", f"rlr.h={h}") for h in H}, rounds)
    print(f"| rlr | {' | '.join(found)} |", flush=True)


def cells(rounds: int) -> None:
    """Print the cost of runs, all of them in processes of their own."""
    print(f"\n| cells | {' | '.join(str(count + 1) for count in CELLS)} |\n|---|{'---|' * len(CELLS)}")
    taken: dict[int, list[float]] = {count: [] for count in CELLS}
    for _, count in itertools.product(range(rounds), CELLS):
        seeds = ",".join(map(str, range(count)))
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "bench", "run", "--methods", "full_bp", "--steps", "1"]
            command += ["--seeds", seeds, "--no-report", "--jobs", "1", "--out", out]
            command += [word for setting in CHEAP for word in ("--set", setting)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            taken[count].append(processor_seconds(command, environment, quiet=True))
    print(f"| one step each | {' | '.join(f'{statistics.median(v):.1f}' for v in taken.values())} |")


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    torch.set_num_threads(1)
    rounds = parser.parse_args().rounds
    steps(rounds)
    cells(rounds)


if __name__ == "__main__":
    main()
