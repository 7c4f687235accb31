"""How fast a device runs each part of a model, and what a step must then take: operations over throughput.

The parts are run by themselves, forward and backward, in the sizes that a step runs them in; a prediction
divides the operations of a simulated step by their throughput (`Calibration.predict`). What has no operations
that are counted, such as a reward without a network, the optimizer and copies between devices, counts as
nothing. How far that is off is not guessed: `check` measures short chains and compares.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.strict import Strict
from bench.engine.batch import Batch
from bench.engine.chain import Chain
from bench.engine.random_streams import normal
from bench.engine.reward import Reward
from bench.experiment.choices import load_reward
from bench.experiment.settings import CellConfig, Training
from bench.measure.cost.simulate import PROMPT, Simulator
from bench.measure.cost.step import subject_of
from bench.measure.cost.times import KIND_OF, KINDS, Seconds, timed_step
from bench.measure.cost.tracker import Operations, Tracker
from bench.run.environment import device_name
from bench.run.load import load_chain

LEAST_RUNS, LEAST_SECONDS = 3, 0.5
CHECKED_STEPS = 8  # T of the chains that predictions are checked on
FILE = "calibration.json"


class Check(Strict):
    """Seconds of one optimizer step of a short chain."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative: 0.1 is a prediction that is a tenth too high."""
        return self.predicted / self.measured - 1


class Calibration(Strict):
    """What a device does with a model."""

    device: str = Field(description="its name")
    threads: int = Field(ge=1, description="of the CPU")
    model: str
    reward: str
    throughput: dict[str, float] = Field(description="FLOP/s by part and direction, such as `unet backward`")
    checks: dict[str, Check] = Field(default={}, description="by method")

    @property
    def error(self) -> float | None:
        """The largest of the checks' errors in size; None if nothing was checked."""
        return max((abs(check.error) for check in self.checks.values()), default=None)

    def predict(self, operations: Operations) -> Seconds:
        """Seconds of a step with these operations. Parts that were not calibrated run as the UNet does."""
        parts: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        for (stage, part, direction), count in operations.items():
            ways = (f"{part} {direction}", f"unet {direction}", "unet forward")
            rate = next(self.throughput[way] for way in ways if way in self.throughput)
            parts[KIND_OF.get(stage, "rest")] += count / rate
        return Seconds(parts)

    def save(self, directory: Path) -> Path:
        """Write calibration.json."""
        write_atomically(directory / FILE, self.model_dump_json(indent=1))
        return directory / FILE


def load(path: Path) -> Calibration:
    """Read a calibration.json. Raises BenchError."""
    try:
        return Calibration.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise BenchError(
            f"{path}: no calibration there ({error}); `bench profile --calibrate` writes one"
        ) from error


def calibrate(config: CellConfig, device: torch.device) -> Calibration:
    """Measure the throughput of a cell's networks. Raises BenchError for the base model."""
    training = _trained(config)
    chain, reward = load_chain(config.model.config, device), load_reward(training.reward, device)
    train = training.train
    found = _unet(chain, train.micro_batch)
    found |= _ends(chain, reward, train.reward_chunk or train.micro_batch)
    return Calibration(
        device=device_name(device),
        threads=config.threads,
        model=config.model.name,
        reward=training.reward.name,
        throughput=found,
    )


def check(calibration: Calibration, cells: Sequence[CellConfig], device: torch.device) -> Calibration:
    """The calibration with what it predicts for these methods on short chains, and what they take."""
    simulate, checks = Simulator(), dict[str, Check]()
    for cell in cells:
        steps = min(cell.model.config.steps, CHECKED_STEPS)
        model = cell.model.config.model_copy(update={"steps": steps})
        short = cell.model_copy(update={"model": cell.model.model_copy(update={"config": model})})
        training = _trained(short)
        predicted = calibration.predict(simulate(short).operations).total
        chain, reward = load_chain(model, device), load_reward(training.reward, device)
        subject = subject_of(short, training, chain, reward)
        batch = Batch((PROMPT,) * training.train.batch, 0)
        timed_step(subject, batch, device)  # warms up
        measured = timed_step(subject, batch, device).total
        checks[training.method.name] = Check(predicted=predicted, measured=measured)
    return calibration.model_copy(update={"checks": checks})


def _trained(config: CellConfig) -> Training:
    if config.training is None:
        raise BenchError("the base model is not trained: there is no step to calibrate")
    return config.training


def _unet(chain: Chain, rows: int) -> dict[str, float]:
    cond, eta = chain.condition([PROMPT] * rows), torch.zeros(rows, device=chain.device)
    middle = chain.steps // 2

    def run(x: Tensor) -> Tensor:
        return chain.transition(chain.prior(x), middle, cond, eta).mean

    x = torch.randn(rows, *chain.latent_shape, device=chain.device)
    return _throughput("unet", run, x, chain.parameters()) | _perturbed(chain, run, x)


def _perturbed(chain: Chain, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, float]:
    """FLOP/s of a forward pass with a row's own parameters, which are drawn for it."""
    size = sum(p.numel() for p in chain.parameters())
    keys = [("calibration", row) for row in range(len(x))]

    def once(_: Any = None) -> None:
        with torch.no_grad(), chain.perturbed(normal(keys, (size,), x.device).mul_(1e-3)):
            run(x)

    with Tracker() as forward:
        once()
    return {"unet perturbed": forward.flops / _median(lambda: None, once, x.device)}


def _ends(chain: Chain, reward: Reward, rows: int) -> dict[str, float]:
    """Decoder and reward."""
    x = torch.randn(rows, *chain.latent_shape, device=chain.device)
    found = _throughput("vae", chain.decode, x, [])
    with torch.no_grad():
        media = chain.decode(x)
    return found | _throughput("reward", lambda pixels: reward.score(pixels, [PROMPT] * rows), media, [])


def _throughput(
    part: str, run: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor]
) -> dict[str, float]:
    """FLOP/s forward and, where there is a gradient, backward; of what has operations that are counted."""
    x = x.detach().requires_grad_()
    inputs = [x, *parameters]

    def back(out: Tensor) -> Any:
        return torch.autograd.grad(out.sum(), inputs, allow_unused=True)

    with torch.no_grad(), Tracker() as forward:
        run(x)
    found = {}
    if forward.flops:
        with torch.no_grad():
            found[f"{part} forward"] = forward.flops / _median(lambda: None, lambda _: run(x), x.device)
    with torch.enable_grad():
        out = run(x)
        if out.requires_grad:
            with Tracker() as backward:
                back(out)
            if backward.flops:
                found[f"{part} backward"] = backward.flops / _median(lambda: run(x), back, x.device)
    return found


def _median(prepare: Callable[[], Any], run: Callable[[Any], Any], device: torch.device) -> float:
    """Seconds of `run(prepare())` without the preparation."""
    took: list[float] = []
    while len(took) < LEAST_RUNS + 1 or sum(took) < LEAST_SECONDS:
        ready = prepare()
        _wait(device)
        started = time.perf_counter()
        run(ready)
        _wait(device)
        took.append(time.perf_counter() - started)
    return statistics.median(took[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
