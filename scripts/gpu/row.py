"""What a check is given, and what it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.base.devices import VISIBLE
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve
from bench.experiment.settings import CellConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """A line of the table. fault: what is wrong, in a sentence; empty if nothing is."""

    check: str
    subject: str
    found: str
    fault: str = ""


@dataclass(frozen=True)
class Place:
    """Where the checks run. small: the embedded model, two steps of its chain and fewer optimizer steps."""

    device: torch.device
    folder: Path
    small: bool

    @property
    def bfloat16(self) -> bool:
        """Whether the device computes in it, not by emulation as a V100."""
        return not self.gpu or torch.cuda.is_bf16_supported(including_emulation=False)

    @property
    def gpu(self) -> bool:
        """Whether there is one to check."""
        return self.device.type == "cuda"

    def cell(self, method: str, *settings: str) -> CellConfig:
        """One method's cell on the large model with random weights, whose reward needs no packages."""
        model = "tiny" if self.small else "sd14"
        sizes = ["model.steps=2"] if self.small else ["model.resolution=512"]
        asked = Options(
            methods=method, model=model, weights="random", reward="colourfulness", seeds="0", threads=1,
            settings=["eval.rewards=[colourfulness]", *settings, *sizes],
        )  # fmt: skip
        cells = resolve(build(asked).combinations[0])
        return next(cell.config for cell in cells if cell.config.training is not None)

    def bench(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the program's own command on the device: with one of the machine's GPUs, or without any."""
        command = [sys.executable, "-m", "bench", *map(str, arguments), "--device", self.device.type]
        first = os.environ.get(VISIBLE, "0").partition(",")[0]
        environment = os.environ | ({VISIBLE: first} if self.gpu else {})
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
