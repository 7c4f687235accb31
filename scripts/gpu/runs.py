"""Whole runs of the program: continued, two at once, and the embedded model's held-out rewards."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.engine.world import World
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.run.evaluate import summary
from bench.run.session import Session
from bench.run.store import CellDir
from scripts.gpu.row import ROOT, Place, Row

STEPS = {False: 3, True: 2}  # of a run, by whether the checks are in small
PAIR = """\
methods: [full_bp]
model: tiny
settings:
  model: {steps: 4}
  train: {prompts_per_step: 2}
  eval: {prompts: 2}
runs:
  - settings: {train: {deterministic: true}}
  - settings: {train: {deterministic: false}}
"""
TOLERANCE = 0.005  # of the base model's held-out rewards between devices, as a share
REFERENCE = ROOT / "results/reference/embedded/emoji-clip/curves.csv"


def continued(place: Place) -> Iterator[Row]:
    """Two cells in one go and step by step; one has `train.deterministic`. They share a card in turns."""
    last = STEPS[place.small]
    file = place.folder / "pair.yaml"
    file.write_text(PAIR)
    whole, parts = place.folder / "whole", place.folder / "parts"

    def run(steps: int, out: Path) -> tuple[int, str]:
        ran = place.bench("run", "--config", file, "--steps", steps, "--jobs", 2, "--no-report", "--out", out)
        return ran.returncode, ran.stdout + ran.stderr

    code, said = run(last, whole)
    done = len(_cells(whole))
    queued = "and the others wait" in " ".join(said.split())
    fault = "" if code == 0 and done == 2 else said.strip()
    if place.gpu and not queued:
        fault = fault or "both had the card at the same time"
    yield Row("two cells", "--jobs 2", f"{done} of 2 done{', one after the other' if queued else ''}", fault)
    failed = [said for code, said in (run(steps, parts) for steps in range(1, last + 1)) if code]
    if fault or failed:
        yield Row("continued", "train.deterministic", "not compared", (failed or ["see above"])[0].strip())
        return
    for deterministic, cell in sorted(_cells(whole).items(), reverse=True):
        a, b = (_lora(one) for one in (cell, _cells(parts)[deterministic]))
        off = max(float((a[name] - b[name]).abs().max()) for name in a)
        equal = all(torch.equal(a[name], b[name]) for name in a)
        demanded = deterministic or not place.gpu
        wrong = f"the LoRA differs by up to {off:.1e} from that of a run in one go"
        found = "bit for bit" if equal else f"differs by up to {off:.1e}"
        subject = f"train.deterministic: {str(deterministic).lower()}"
        yield Row("continued", subject, found, "" if equal or not demanded else wrong)


def _cells(out: Path) -> dict[bool, CellDir]:
    """The cells that have an adapter, by whether they are deterministic."""
    cells = (CellDir(lora.parent) for lora in out.glob("cells/full_bp*/lora"))
    return {cell.config().deterministic: cell for cell in cells}


def _lora(cell: CellDir) -> dict[str, torch.Tensor]:
    (file,) = (cell.path / "lora").glob("*.safetensors")
    return load_file(file)


def embedded(place: Place) -> Iterator[Row]:
    """The base model's held-out rewards in the demo's evaluation, against the reference results of a CPU."""
    cells = resolve_all(build(Options(config="demo", methods="random-direction", seeds="0")).combinations)
    config = next(cell.config for cell in cells if cell.config.training is None)
    session = Session(CellDir(place.folder / "base"), config, World(), place.device)
    found, expected = summary(session.held_out().rows), _reference()
    for reward in session.rewards:
        mean = found[reward].mean
        off = abs(mean / expected[reward] - 1)
        fault = "" if off < TOLERANCE else f"{off:.1%} off the CPU's {expected[reward]:g}"
        yield Row("held-out reward", reward, f"{mean:.6g} (CPU: {expected[reward]:g})", fault)


def _reference() -> dict[str, float]:
    """The base model's held-out scores by reward, as the reference results have them."""
    with REFERENCE.open() as stream:
        return {
            row["reward"]: float(row["score"]) for row in csv.DictReader(stream) if row["method"] == "base"
        }
