"""What torch.compile takes and saves: docs/performance.md.

    python -m scripts.measure_compile
    python -m scripts.measure_compile --source random:sd14 --resolution 256 --rows 1 --calls 3

Processor seconds of a call of the network by its kind, one thread, float32, compilers included: the first
call, and the median of later ones. TORCHINDUCTOR_CACHE_DIR should be an empty directory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.engine.chain import State
from bench.models.config import LoraConfig, ModelConfig
from bench.models.embedded import SD_DIR
from bench.models.image import ImageChain


def calls(where: Mapping[str, Any], rows: int, compiled: bool) -> dict[str, Callable[[], object]]:
    """The kinds of calls: without a graph, with forward and backward, perturbed. where: the model."""
    config = ModelConfig(**where, steps=20, guidance=1.0, compile=compiled, lora=LoraConfig(rank=4))
    chain = ImageChain.load(config, torch.device("cpu"))
    x, cond, eta = (
        torch.randn(rows, *chain.latent_shape),
        chain.condition(["a cat"] * rows),
        torch.zeros(rows),
    )
    delta = 1e-3 * torch.randn(rows, sum(p.numel() for p in chain.parameters()))

    def both() -> object:
        return torch.autograd.grad(
            chain.transition(State(x), 0, cond, eta).mean.sum(), chain.parameters(), allow_unused=True
        )

    @torch.no_grad()
    def forward() -> object:
        return chain.transition(State(x), 0, cond, eta)

    def perturbed() -> object:
        with chain.perturbed(delta):
            return forward()

    return {"forward": forward, "forward and backward": both, "forward, perturbed": perturbed}


def seconds(call: Callable[[], object]) -> float:
    """Of this process and of the compilers that it waited for."""
    before = sum(os.times()[:4])
    call()
    return sum(os.times()[:4]) - before


def taken(call: Callable[[], object]) -> float:
    """Of this process alone, to the microsecond."""
    before = time.process_time()
    call()
    return time.process_time() - before


def main() -> None:
    """Print a line for each kind of call, uncompiled and compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", help="such as random:sd14; the embedded model without it")
    parser.add_argument("--resolution", type=int, help="pixels per side")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--calls", type=int, default=9)
    asked = parser.parse_args()
    where = {"source": asked.source} if asked.source else {"path": SD_DIR}
    torch.set_num_threads(1)
    for compiled in (False, True):
        for kind, call in calls(where | {"resolution": asked.resolution}, asked.rows, compiled).items():
            first, later = seconds(call), statistics.median(taken(call) for _ in range(asked.calls))
            how = "compiled" if compiled else "uncompiled"
            print(f"{how}, {kind}: first {first:.1f}, then {later:.3f}", flush=True)


if __name__ == "__main__":
    main()
