"""How fast a device runs each part of a model, and what a step must then take: operations over throughput.

The parts are run by themselves, forward and backward, in the sizes that a step runs them in; a prediction
divides the operations of a simulated step by their throughput (`Calibration.predict`). What has no operations
that are counted, such as a reward without a network, the optimizer and copies between devices, counts as
nothing. How far that is off is not guessed: `check` measures short chains and compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor
from torch.utils.benchmark import Timer

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.strict import Strict
from bench.engine.chain import Chain
from bench.engine.random_streams import normal
from bench.engine.reward import Reward
from bench.experiment.choices import load_reward
from bench.experiment.settings import CellConfig
from bench.measure.cost.ledger import NETWORK
from bench.measure.cost.measure import timed
from bench.measure.cost.simulate import Simulator
from bench.measure.cost.step import PROMPT, trained, with_model
from bench.measure.cost.times import KIND_OF, KINDS, Seconds
from bench.measure.cost.tracker import Operations, Tracker
from bench.run.environment import device_name
from bench.run.load import load_chain

SECONDS = 0.5  # for which each part runs, at least
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
    throughput: dict[str, float] = Field(
        description="FLOP/s by part and direction, such as `network backward`"
    )
    checks: dict[str, Check] = Field(default={}, description="by method")

    @field_validator("throughput", mode="before")
    @classmethod
    def _of_before(cls, given: Any) -> Any:
        """Earlier files call the network that is trained `unet`."""
        if not isinstance(given, dict):
            return given
        return {re.sub("^unet ", f"{NETWORK} ", str(way)): rate for way, rate in given.items()}

    @property
    def error(self) -> float | None:
        """The largest of the checks' errors in size; None if nothing was checked."""
        return max((abs(check.error) for check in self.checks.values()), default=None)

    def predict(self, operations: Operations) -> Seconds:
        """Seconds of a step with these operations. Parts that were not measured run as the network does."""
        parts: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        for (stage, part, direction), count in operations.items():
            ways = (f"{part} {direction}", f"{NETWORK} {direction}", f"{NETWORK} forward")
            rate = next(self.throughput[way] for way in ways if way in self.throughput)
            parts[KIND_OF.get(stage, "rest")] += count / rate
        return Seconds(parts)

    def save(self, directory: Path) -> Path:
        """Write calibration.json into a directory and return its path."""
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
    training = trained(config)
    chain, reward = load_chain(config.model.config, device), load_reward(training.reward, device)
    rows = training.train.at_once
    return Calibration(
        device=device_name(device),
        threads=config.threads,
        model=config.model.name,
        reward=training.reward.name,
        throughput=_network(chain, rows) | _ends(chain, reward, training.train.reward_chunk or rows),
    )


def check(calibration: Calibration, cells: Sequence[CellConfig], device: torch.device) -> Calibration:
    """The calibration with what it predicts for these methods on short chains, and what they take."""
    simulate, checks = Simulator(), dict[str, Check]()
    for cell in cells:
        short = with_model(cell, steps=min(cell.model.config.steps, CHECKED_STEPS))
        predicted = calibration.predict(simulate(short).operations).total
        measured = timed(short, device).total
        checks[trained(cell).method.name] = Check(predicted=predicted, measured=measured)
    return calibration.model_copy(update={"checks": checks})


def _network(chain: Chain, rows: int) -> dict[str, float]:
    """FLOP/s of a step's network: forward, backward, and forward with parameters drawn for every row."""
    cond, eta = chain.condition([PROMPT] * rows), torch.zeros(rows, device=chain.device)

    def run(x: Tensor) -> Tensor:
        return chain.transition(chain.prior(x), chain.steps // 2, cond, eta).mean

    x, parameters = torch.randn(rows, *chain.latent_shape, device=chain.device), chain.parameters()
    keys, size = [("calibration", row) for row in range(rows)], sum(p.numel() for p in parameters)

    @torch.no_grad()
    def perturbed() -> None:
        with chain.perturbed(normal(keys, (size,), x.device).mul_(1e-3)):
            run(x)

    return _rates(NETWORK, run, x, parameters) | {f"{NETWORK} perturbed": _rate(perturbed)}


def _ends(chain: Chain, reward: Reward, rows: int) -> dict[str, float]:
    x = torch.randn(rows, *chain.latent_shape, device=chain.device)
    with torch.no_grad():
        media = chain.decode(x)
    score = _rates("reward", lambda pixels: reward.score(pixels, [PROMPT] * rows), media)
    return _rates("vae", chain.decode, x) | score


def _rates(
    part: str, run: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor] = ()
) -> dict[str, float]:
    """FLOP/s forward and, where there is a gradient, backward; of what has operations that are counted."""
    x = x.detach().requires_grad_()
    found = {f"{part} forward": _rate(torch.no_grad()(lambda: run(x)))}
    out = run(x)
    if out.requires_grad:
        total, inputs = out.sum(), [x, *parameters]
        back = partial(torch.autograd.grad, total, inputs, retain_graph=True, allow_unused=True)
        found[f"{part} backward"] = _rate(back)
    return {name: rate for name, rate in found.items() if rate}


def _rate(work: Callable[[], object]) -> float:
    """Operations of a call per second: 0 where none are counted. GPUs are waited for."""
    with Tracker() as seen:
        work()
    if not seen.flops:
        return 0.0
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return seen.flops / timer.blocked_autorange(min_run_time=SECONDS).median
