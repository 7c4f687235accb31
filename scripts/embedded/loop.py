"""The training loop of all three models: schedule, moving average, snapshots that resume bit for bit.

A run is a function of its seed and its number of steps. Everything random is drawn from the two
generators of `Training`, whose states are part of a snapshot; so a run killed at any moment and started
again by the same command ends in the same weights as one that was never interrupted (same machine, same
thread count).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.embedded.muon import MuonAdam


@dataclass(frozen=True)
class Schedule:
    """Learning rate over steps: linear warm-up, constant, linear decay to 1 % over the last `decay` steps.

    Because only the end depends on `steps`, a longer run starts like a shorter one.
    """

    steps: int
    warmup: int = 60
    decay: int = 0

    def scale(self, step: int) -> float:
        """Factor on the learning rate at `step` (counted from 0)."""
        falling = (self.steps - step) / self.decay if self.decay else 1.0
        return min(1.0, (step + 1) / self.warmup) * min(1.0, max(falling, 0.0) + 0.01)


@dataclass
class Training:
    """What changes while a model trains."""

    model: nn.Module
    optimizer: MuonAdam
    seed: int
    ema_decay: float = 0.999
    step: int = 0
    torch_rng: torch.Generator = field(init=False)
    numpy_rng: np.random.Generator = field(init=False)
    ema: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.torch_rng = torch.Generator().manual_seed(self.seed)
        self.numpy_rng = np.random.default_rng(self.seed)
        self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    @torch.no_grad()
    def average(self) -> None:
        """Move the average a step towards the weights; the window grows with the step number at first."""
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.model.named_parameters():
            self.ema[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Overwrite the model's weights by their moving average."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.ema[name])

    def save(self, path: Path) -> None:
        """Write a snapshot atomically."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": self.torch_rng.get_state(),
            "numpy_rng": self.numpy_rng.bit_generator.state,
        }
        save_atomically(state, path)

    def load(self, path: Path) -> None:
        """Continue from a snapshot."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.torch_rng.set_state(state["torch_rng"])
        self.numpy_rng.bit_generator.state = state["numpy_rng"]


def save_atomically(state: object, path: Path) -> None:
    """`torch.save` to a temporary file beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    torch.save(state, part)
    part.replace(path)


def train(
    training: Training,
    loss: Callable[[Training], Tensor],
    schedule: Schedule,
    directory: Path,
    *,
    snapshot_every: int = 500,
    milestones: tuple[int, ...] = (),
    log: Callable[[str], None] = print,
    report: Callable[[Training], str] | None = None,
    report_every: int = 1000,
) -> None:
    """Run `schedule.steps` steps, or what is left of them after the snapshot in `directory`.

    At each step in `milestones` the averaged weights are kept as `step-<n>.pt`. `report` adds a line of
    measurements to the log; it must not touch the generators of `training`.
    """
    snapshot = directory / "snapshot.pt"
    if snapshot.exists():
        training.load(snapshot)
        log(f"continuing at step {training.step}")
    total, since, cpu = 0.0, training.step, time.process_time()
    while training.step < schedule.steps:
        training.optimizer.zero_grad()
        value = loss(training)
        value.backward()
        training.optimizer.step(schedule.scale(training.step))
        training.step += 1
        training.average()
        total += float(value.detach())
        if training.step % 100 == 0:
            done = training.step - since
            log(
                f"step {training.step} loss {total / done:.4f}"
                f" cpu-ms/step {1e3 * (time.process_time() - cpu) / done:.0f}"
            )
            total, since, cpu = 0.0, training.step, time.process_time()
        if training.step in milestones:
            save_atomically(training.ema, directory / f"step-{training.step:06d}.pt")
        if training.step % snapshot_every == 0 or training.step == schedule.steps:
            training.save(snapshot)
        if report is not None and training.step % report_every == 0:
            before = time.process_time()
            log(f"step {training.step} {report(training)}")
            cpu += time.process_time() - before  # a report is no part of a step
