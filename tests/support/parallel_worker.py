"""What each of two processes does in tests/engine/test_world.py and tests/run/test_shared_evaluation.py.

It is a module of its own because spawned processes import it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from bench.base import registry
from bench.engine.world import Interrupted, World
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of, fill, gradient

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "rlr": ("rlr", {"h": 1, "eta": 1.0, "scale": 0.3}),
    "rlr by norms": ("rlr", {"h": 1, "eta": 1.0, "scale": 0.3, "start": "norms", "completion": "resampled"}),
    "rlr antithetic": ("rlr", {"h": 2, "eta": 1.0, "scale": 0.3, "antithetic": True}),
    "rlr with a control variate": (
        "rlr",
        {"h": 1, "eta": 1.0, "completion": "resampled", "drawn": 2, "control": "network"},
    ),
    "ddpo": ("ddpo", {"minibatches": 2, "inner_epochs": 2, "clip": 0.2, "min_count": 2}),
    "truncated_bp": ("truncated_bp", {"k": 2}),
    "grpo with kl": ("grpo", {"common_noise": True, "window": 2, "window_moves": "drawn", "clip": 0.2}),
    "nft": ("nft", {"levels": 3, "kl": 0.1, "ramp": 0.2}),
    "awm": ("awm", {"levels": 3, "kl": 0.1, "ramp": 0.2}),
    "adjoint matching": ("adjoint_matching", {"last": 0.5, "reward_scale": 3.0}),
    "drtune": ("drtune", {"k": 2}),
    "draft_lv": ("draft_lv", {}),
}


def run(world: World) -> dict[str, Any]:
    """Two batches of eight samples with every method: gradients, norms, rewards, counts, state."""
    found: dict[str, Any] = {}
    for name, (method_name, settings) in RUNS.items():
        cls = registry.load("method", method_name)
        chain = ToyChain(4, 2, noise=0.7)
        method = cls(cls.Config.model_validate(settings), 4)
        engine = engine_of(chain, micro_batch=3, world=world, kl=0.5 if "kl" in name else 0.0)
        fill(chain, 0.5)  # away from where training starts
        gradients, reports = [], []
        for step in range(2):
            for report in method.updates(engine, batch_of(8, step)):
                gradients.append(gradient(chain))
                norms = {kind: term.norm for kind, term in report.terms.items()}
                reports.append((report.rewards, norms, report.forward, report.backward))
                with torch.no_grad():
                    chain.weight.add_(0.02)  # an optimizer's step, after which older parameters are others
        found[name] = (torch.stack(gradients), reports, dict(method.state))
    return found


def left(world: World) -> list[int]:
    """Why each of two batches was left, where the second process is asked to stop in the middle of it."""
    reasons, times = [], 0

    def stop() -> int:
        nonlocal times
        times += 1
        return 2 * (times > 5 and world.rank == 1)

    for name in ("truncated_bp", "ddpo"):
        cls, times = registry.load("method", name), 0
        method = cls(cls.Config(), 4)
        engine = engine_of(ToyChain(4, 2, noise=0.7), micro_batch=3, world=world)
        world.stop = stop
        try:
            for _ in method.updates(engine, batch_of(8)):
                pass
        except Interrupted as interrupted:
            reasons.append(interrupted.reason)
        world.stop = lambda: 0
    world.hear()
    return reasons


def run_and_leave(world: World) -> dict[str, Any]:
    """What `run` finds, and why `left` left."""
    return run(world) | {"left": left(world)}


def worker(rank: int, port: int, directory: str, what: Callable[[World], Any] = run_and_leave) -> None:
    """One of two processes that talk through gloo. what: it does."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    torch.save(what(World(state)), Path(directory) / f"{rank}.pt")
    state.destroy_process_group()
