"""Whether gradients agree with a peer's, then how processor seconds and memory compare.

    python -m scripts.peers.compare [--rounds 3] [--methods ddpo,alignprop] [--graphs staged]

Both sides run alternately, with one thread; a figure is the median over rounds, with the smallest and the
largest ratio of a round beside it. A ratio above 1 says that this program takes less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.measure.cost.step import step
from scripts.peers import our_side, task
from scripts.processor_seconds import processor_seconds

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".peers" / "bin" / "python"
TOLERANCE = 1e-4  # of cosine and norm


def run(python: Path | str, module: str, *arguments: object) -> None:
    """One side, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment |= {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "1"}
    subprocess.run([str(python), "-m", module, *map(str, arguments)], check=True, env=environment)


def agree(method: str, steps: int, batch: int, place: Path) -> None:
    """Raise SystemExit unless both sides have the same gradient at the same parameters and noise."""
    record = place / "record.pt"
    options = ("--method", method, "--steps", steps, "--batch", batch)
    run(PEER, "scripts.peers.trl_side", place / "unused", *options, "--record", record)
    angle, norm = our_side.disagreement(torch.load(record, weights_only=True), method, steps)
    print(f"{method}: 1 - cosine of the gradients {angle:.1e}, their norms differ by {abs(norm):.1e}")
    if max(angle, abs(norm)) > TOLERANCE:
        raise SystemExit(f"{method}: the gradients are not the same, so times would say nothing")


def measured(python: Path | str, module: str, place: Path, *arguments: object) -> dict[str, Any]:
    """What a side measured of itself."""
    out = place / "measured.json"
    run(python, module, out, *arguments)
    return json.loads(out.read_text())


def compare(method: str, steps: int, batch: int, graphs: str, rounds: int, place: Path) -> None:
    """Print the ratios of one method."""
    ratios: dict[str, list[float]] = {"step": [], "start-up of the engine": [], "peak memory": []}
    rows: list[str] = []
    for _ in range(rounds):
        options = ("--method", method, "--steps", steps, "--batch", batch)
        theirs = measured(PEER, "scripts.peers.trl_side", place, *options)
        ours = measured(sys.executable, "scripts.peers.our_side", place, *options, "--graphs", graphs)
        pairs = [
            (statistics.median(theirs["steps"][1:]), statistics.median(ours["steps"][1:])),
            (theirs["start"] + theirs["steps"][0], ours["start"] + ours["steps"][0]),
            (theirs["peak"], ours["peak"]),
        ]
        for found, (peer, own) in zip(ratios.values(), pairs, strict=True):
            found.append(peer / own)
        rows.append(", ".join(f"{peer:.2f} / {own:.2f}" for peer, own in pairs))
    for name, found in ratios.items():
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(f"{method}: {name}, TRL / ours: {statistics.median(found):.2f} ({spread})")
    print("\n".join(f"  round {k}: {row}" for k, row in enumerate(rows, 1)))


def start_up(place: Path) -> float:
    """Processor seconds of `bench run` with one step of DDPO, the base model and the cheapest evaluation."""
    settings = ("model.steps=50", "model.guidance=5", "model.lora.rank=4", "train.batch_size=2",
                "eval.prompts=1", "eval.images_per_prompt=1", "eval.rewards=[]")  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "bench", "run", "--methods", "ddpo", "--steps", "1", "--no-report"]
    command += ["--reward", "colourfulness", *words, "--out", str(place / "run")]
    return processor_seconds(command, os.environ | {"OMP_NUM_THREADS": "1"}, quiet=True)


def full_backpropagation(steps: int, batch: int, rounds: int) -> None:
    """Print what keeping graphs saves where all steps are pulled back."""
    taken: dict[str, list[float]] = {"staged": [], "auto": []}
    made = {}
    for graphs in taken:
        made[graphs] = our_side.subject("full_bp", steps, batch)
        made[graphs].engine.graphs.keep = graphs
    batches = our_side.batches(batch)
    for _ in range(rounds + 1):  # the first warms up
        for graphs, one in made.items():
            before = time.process_time()
            step(one, next(batches))
            taken[graphs].append(time.process_time() - before)
    ratios = [staged / auto for staged, auto in zip(taken["staged"][1:], taken["auto"][1:], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"full_bp: step, graphs run again / kept: {statistics.median(ratios):.2f} ({spread})")


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(task.METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--graphs", default="auto", choices=("auto", "staged"), help="train.graphs of our side"
    )
    asked = parser.parse_args()
    if not PEER.exists():
        raise SystemExit("no TRL here. First: scripts/peers/setup.sh")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for method in asked.methods.split(","):
            agree(method, min(asked.steps, 10), asked.batch, place)
            compare(method, asked.steps, asked.batch, asked.graphs, asked.rounds, place)
        full_backpropagation(asked.steps, asked.batch, asked.rounds)
        print(f"bench run, one step: {start_up(place):.1f} processor seconds in all")


if __name__ == "__main__":
    main()
