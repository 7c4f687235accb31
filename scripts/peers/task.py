"""What both sides do: the same model, prompts, reward, steps and batch. Imported in both environments."""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

MODEL = Path(__file__).parents[2] / "bench" / "models" / "embedded" / "weights" / "sd"
PROMPTS = ("a red heart", "a green tree", "a yellow star", "a blue car")
RANK, GUIDANCE, LR, TRUNCATION = 4, 5.0, 3e-4, 8
METHODS = ("ddpo", "alignprop")  # AlignProp with a fixed truncation: our `truncated_bp`


def redness(images: Tensor, prompts: list[str]) -> Tensor:
    """A differentiable reward [B] of pictures [B, 3, H, W] in [0, 1]."""
    return images[:, 0].float().mean((1, 2)) - 0.5 * images[:, 1:].float().mean((1, 2, 3))


@dataclass
class Measured:
    """start: processor seconds of the process before its first step. steps: of each step. peak: MiB."""

    start: float
    steps: list[float] = field(default_factory=list)
    peak: float = 0.0

    def write(self, file: Path) -> None:
        """As JSON, with the memory that the process took at most."""
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        file.write_text(json.dumps(asdict(self)))


def timed(step, count: int) -> Measured:  # type: ignore[no-untyped-def]
    """Call `step` so often."""
    found = Measured(time.process_time())
    for _ in range(count):
        before = time.process_time()
        step()
        found.steps.append(time.process_time() - before)
    return found


def arguments() -> argparse.Namespace:
    """Of either side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, help="JSON of what was measured")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--count", type=int, default=3, help="optimizer steps")
    parser.add_argument("--steps", type=int, default=50, help="T")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--graphs", default="auto", help="ours: what train.graphs is")
    parser.add_argument("--record", type=Path, help="trajectory and gradient of one step, instead")
    return parser.parse_args()
