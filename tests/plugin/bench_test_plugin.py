"""An outside plugin as a user would write it, small enough that a whole cell runs in a second.

A model family `dots` (an affine map on 8×8 pictures), a reward `brightness`, a method `push` that
backpropagates and keeps a running mean, `leaning` that does so through the engine, and a method `broken` that
fails as it is told to.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.base.strict import Strict
from bench.engine.batch import Batch, Report, Term
from bench.engine.chain import Level, State, Transition
from bench.engine.engine import UNIT_WEIGHTS, Engine
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod
from bench.engine.random_streams import normal
from bench.engine.reward import Reward
from bench.models.config import ModelConfig


@dataclass(frozen=True)
class Dots:
    """A prompt's length, as a shift of the picture."""

    shift: Tensor

    def select(self, rows: Tensor) -> Dots:
        return Dots(self.shift[rows])


class DotsChain:
    """x ← 0.9 x + W x + shift, W [3, 3] over colours."""

    evaluations_per_step = 1
    device = torch.device("cpu")
    latent_shape = (3, 8, 8)

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.weight = torch.nn.Parameter(0.1 * torch.randn(3, 3))
        self._untrained = [
            torch.nn.Parameter(p.detach().clone(), requires_grad=False) for p in self.parameters()
        ]
        self._delta: Tensor | None = None

    def condition(self, prompts: Sequence[str]) -> Dots:
        return Dots(torch.tensor([(len(p) % 7) / 20 for p in prompts]))

    def prior(self, noise: Tensor) -> State:
        return State(noise)

    def transition(
        self,
        state: State,
        i: int,
        cond: Dots,
        eta: Tensor,
        x_path_only: bool = False,
        detach_input: bool = False,
    ) -> Transition:
        weight = self.weight.expand(len(state.x), 3, 3)
        if self._delta is not None:
            weight = weight + self._delta
        seen = state.x.detach() if detach_input else state.x
        output = torch.einsum("bij,bjhw->bihw", weight, seen) + cond.shift[:, None, None, None]
        output = output.detach() if x_path_only else output
        return Transition(0.9 * state.x + output, 0.1 * eta[:, None, None, None])

    def predict_x0(
        self, state: State, i: int, cond: Dots, x_path_only: bool = False, detach_input: bool = False
    ) -> Tensor:
        eta = torch.zeros(len(state.x))
        return self.transition(state, i, cond, eta, x_path_only, detach_input).mean

    def level(self, i: int) -> Level:
        return Level(i / self.steps, 1 - i / self.steps)

    def noised(self, x0: Tensor, noise: Tensor, i: int) -> State:
        return State(self.level(i).of(x0, noise))

    def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        return torch.sigmoid(x)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.weight]

    @contextmanager
    def perturbed(self, delta: Tensor) -> Iterator[None]:
        self._delta = delta.reshape(-1, 3, 3)
        try:
            yield
        finally:
            self._delta = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        trained = self.parameters()
        (self.weight,) = self._untrained
        try:
            yield
        finally:
            (self.weight,) = trained

    def save_lora(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        save_file({"weight": self.weight.detach()}, directory / "weight.safetensors")

    def load_lora(self, directory: Path) -> None:
        self.weight = torch.nn.Parameter(load_file(directory / "weight.safetensors")["weight"])


def load_dots(config: ModelConfig, device: torch.device) -> DotsChain:
    """The loader of the family."""
    return DotsChain(config.steps)


class BrightnessConfig(Strict):
    """Settings of the reward."""

    target: float = Field(default=1.0, description="brightness that scores best")
    glare: float = Field(default=2.0, description="a picture with a brighter spot scores NaN")


class Brightness(Reward):
    """How bright a picture is."""

    Config: ClassVar[type[Strict]] = BrightnessConfig
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "0 … 1"

    def __init__(self, config: BrightnessConfig, device: torch.device) -> None:
        self.target, self.glare = config.target, config.glare

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        score = 1 - (media.flatten(1).mean(dim=1) - self.target).square()
        return score.masked_fill(media.flatten(1).amax(dim=1) > self.glare, math.nan)


class PushConfig(Strict):
    """Settings of the method."""

    strength: float = Field(default=1.0, gt=0, description="factor on the gradient")
    pause: float = Field(default=0.0, ge=0, description="seconds to sleep in each batch")
    inner: int = Field(default=1, ge=1, description="optimizer steps per batch")


def _pause(engine: Engine, seconds: float) -> None:
    """The environment has a pause for every method: one that a cell's settings and name do not know of."""
    assert engine.chain.steps  # a run that is only planned has no chain, and does not get here
    time.sleep(seconds + float(os.environ.get("BENCH_TEST_PAUSE", "0")))


def _push(engine: Engine, batch: Batch, strength: float, baseline: float) -> Report:
    chain, reward = engine.chain, engine.reward
    keys = [("push", engine.seed, batch.step, b) for b in range(len(batch.prompts))]
    cond = chain.condition(batch.prompts)
    x = normal(keys, chain.latent_shape, chain.device)
    for i in range(chain.steps):
        x = chain.transition(State(x), i, cond, torch.zeros(len(x))).mean
    rewards = reward.score(chain.decode(x), batch.prompts)
    for parameter in chain.parameters():
        parameter.grad = None
    (-strength * (rewards - baseline).mean()).backward()
    norm = float(sum(p.grad.square().sum() for p in chain.parameters() if p.grad is not None)) ** 0.5
    count = len(batch.prompts) * chain.steps
    return Report(rewards.detach(), {"fo": Term(norm, None)}, count, count, extra={"baseline": baseline})


class Push(Method):
    """Backpropagation, scaled by a running mean of rewards: state that a resume could lose."""

    Config: ClassVar[type[Strict]] = PushConfig
    biased = False
    needs_reward_grad = True

    def __init__(self, config: PushConfig, steps: int) -> None:
        super().__init__(config, steps)
        self.state = {"mean": 0.0}

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        _pause(engine, self.config.pause)
        for _ in range(self.config.inner):
            report = _push(engine, batch, self.config.strength * (1 + self.state["mean"]), self.state["mean"])
            self.state["mean"] = 0.9 * self.state["mean"] + 0.1 * float(report.rewards.mean())
            yield report


class LeaningConfig(Strict):
    """Settings of the method."""

    pause: float = Field(default=0.0, ge=0, description="seconds to sleep in each batch")


class Leaning(PlanMethod):
    """FO at every step, scaled by a running mean of rewards: a profile that loses the state shows it."""

    Config: ClassVar[type[Strict]] = LeaningConfig
    biased = True
    needs_reward_grad = True

    def plan(self, rng: random.Random) -> Plan:
        return Plan((Segment(Kind.FO, 0, self.steps),), (0.0,) * self.steps)

    def estimator(self) -> Estimator:
        return Estimator(weights={**UNIT_WEIGHTS, Kind.FO: 1 + self.state.get("mean", 0.0)})

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        _pause(engine, self.config.pause)
        for report in super().updates(engine, batch):
            self.state["mean"] = 0.9 * self.state.get("mean", 0.0) + 0.1 * float(report.rewards.mean())
            yield report


class BrokenConfig(Strict):
    """How to fail."""

    how: Literal["error", "nan reward", "nan gradient", "kill", "full disk", "memory", "freeze"] = Field(
        default="error", description="what goes wrong"
    )
    at: int = Field(default=3, ge=1, description="in the batch that takes this step")
    once: Path | None = Field(default=None, description="a file that remembers that it went wrong already")


class Broken(Method):
    """Works until it fails."""

    Config: ClassVar[type[Strict]] = BrokenConfig
    biased = False
    needs_reward_grad = True

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        report = _push(engine, batch, 1.0, 0.0)
        if batch.step + 1 == self.config.at and not self._failed_before():
            report = self._fail(engine, report)
        yield report

    def _failed_before(self) -> bool:
        once = self.config.once
        if once is None or once.exists():
            return once is not None
        once.touch()
        return False

    def _fail(self, engine: Engine, report: Report) -> Report:
        if self.config.how == "error":
            raise RuntimeError("out of luck")
        if self.config.how == "kill":
            os.kill(os.getpid(), 9)
        if self.config.how == "memory":
            eaten = []
            while True:
                eaten.append(bytearray(os.urandom(2**20) * 50))
                time.sleep(0.1)
        if self.config.how == "freeze":  # this process and the one that would pass a warning on to it
            os.kill(os.getppid(), signal.SIGSTOP)
            time.sleep(600)
        if self.config.how == "full disk":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
        if self.config.how == "nan gradient":
            engine.chain.parameters()[0].grad = torch.full((3, 3), math.nan)
        if self.config.how == "nan reward":
            return Report(report.rewards * math.nan, report.terms, report.forward, report.backward)
        return report
