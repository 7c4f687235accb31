"""One optimizer step of a cell under a tracker, the same for real and for fake tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from bench.base.errors import BenchError
from bench.base.networks import networks_in
from bench.engine.batch import Batch, MicroBatch, Trajectory
from bench.engine.chain import Chain
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.engine.offload import Offloader
from bench.engine.reward import Reward
from bench.engine.rollout import Draw
from bench.engine.stages import OPTIMIZER, listening, stage
from bench.experiment.choices import load_method
from bench.experiment.settings import CellConfig, TrainConfig, Training
from bench.measure.cost.fake_model import parts_of
from bench.measure.cost.ledger import NETWORK
from bench.measure.cost.tracker import Tracker
from bench.run.train import make_optimizer

PROMPT = "a picture"  # what a step costs does not depend on it


def trained(config: CellConfig) -> Training:
    """What a cell has and the base model has not. Raises BenchError for the base model."""
    if config.training is None:
        raise BenchError("the base model is not trained: there is no step to profile or plan")
    return config.training


def with_model(config: CellConfig, **settings: Any) -> CellConfig:
    """The cell with other settings of its model."""
    model = config.model.config.model_copy(update=settings)
    return config.model_copy(update={"model": config.model.model_copy(update={"config": model})})


def with_method(config: CellConfig, name: str, settings: dict[str, Any]) -> CellConfig:
    """The trained cell with another method."""
    training = trained(config)
    method = training.method.model_copy(update={"name": name, "config": settings})
    return config.model_copy(update={"training": training.model_copy(update={"method": method})})


@dataclass(frozen=True)
class Subject:
    """What is profiled: a cell's objects, loaded."""

    chain: Chain
    reward: Reward
    engine: Engine
    method: Method
    train: TrainConfig
    optimizer: torch.optim.Optimizer

    @property
    def dtype(self) -> str:
        """The dtype of most of the weights, such as `float16`."""
        sizes: dict[torch.dtype, int] = {}
        for network in itertools.chain(*parts_of(self.chain).values()):
            for p in network.parameters():
                sizes[p.dtype] = sizes.get(p.dtype, 0) + p.numel()
        return str(max(sizes, key=lambda dtype: sizes[dtype])).removeprefix("torch.")

    @property
    def resolution(self) -> int | str | None:
        """Pixels per side of the pictures, or `320x512`, height first, if the chain says it."""
        pixels = getattr(self.chain, "pixels", None)
        if pixels is None:
            return None
        height, width = pixels
        return height if height == width else f"{height}x{width}"


def subject_of(
    config: CellConfig, training: Training, chain: Chain, reward: Reward, draw: Draw | None = None
) -> Subject:
    """A trained cell's engine, method and optimizer, as the trainer makes them. draw: as for `Engine`."""
    train = training.train
    method = load_method(training.method, chain.steps)
    engine = Engine(
        chain,
        reward,
        seed=training.seed,
        micro_batch=train.micro_batch,
        rollout_batch=train.rollout_batch,
        reward_chunk=train.reward_chunk,
        offload=config.model.config.offload,
        graphs=train.least_graphs,
        draw=draw,
        kl=train.kl if method.estimates else 0.0,
    )
    return Subject(chain, reward, engine, method, train, make_optimizer(train, chain.parameters()))


@dataclass(frozen=True)
class StepWork:
    """Network evaluations of one batch, counted per sample. updates: optimizer steps that it gives."""

    forward: int
    backward: int
    updates: int


class Counting(Offloader):
    """Keeps copies beside the originals, where all memory is one, and tells the tracker of them."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def offload(self, tensor: Tensor) -> Tensor:
        """A copy, marked as the host's."""
        copy = tensor.detach().clone()
        self.tracker.mark([copy], f"activations {NETWORK}", host=True)
        return copy

    def restore(self, tensor: Tensor, device: torch.device) -> Tensor:
        """A copy, so that what is offloaded stays as it is."""
        return tensor.clone()


def step(subject: Subject, batch: Batch) -> StepWork:
    """All optimizer steps of one batch, as the trainer takes them."""
    forward = backward = updates = 0
    limit = math.inf if subject.train.clip_norm is None else subject.train.clip_norm
    for report in subject.method.updates(subject.engine, batch):
        with stage(OPTIMIZER):
            clip_grad_norm_(subject.chain.parameters(), limit)
            subject.optimizer.step()
        forward, backward, updates = forward + report.forward, backward + report.backward, updates + 1
    return StepWork(forward, backward, updates)


def labels(chain: Chain) -> Callable[[Tensor], str | None]:
    """What tensors are that are made outside of all networks, by their shapes.

    In the shape of the LoRA, whole or in parts, gradients; rows of such vectors are perturbations.
    """
    parameters = chain.parameters()
    whole = sum(p.numel() for p in parameters)
    shapes = {(whole,), *(tuple(p.shape) for p in parameters)}

    def label(tensor: Tensor) -> str | None:
        shape = tuple(tensor.shape)
        if tensor.dtype is not torch.float32 or not shape:
            return None
        if shape in shapes:
            return "gradients"
        return "perturbations" if len(shape) == 2 and shape[1] == whole else None

    return label


def entrances(chain: Chain, reward: Reward) -> list[tuple[str, object, str]]:
    """(part, object, name of the function) of every way into a network."""
    networks = parts_of(chain)
    found: list[tuple[str, object, str]] = [("vae", chain, "decode"), ("reward", reward, "score")]
    return found + [(NETWORK, network, "forward") for network in networks.get(NETWORK, [])]


@contextmanager
def tracked(tracker: Tracker, subject: Subject, wrap: Callable[..., Any] | None = None) -> Iterator[None]:
    """Within the context, the tracker knows the subject's parts and is told what the engine does.

    wrap: (part, function) → what stands for a network's forward, the decoder and the reward.
    """
    chain, reward, engine = subject.chain, subject.reward, subject.engine
    parts = parts_of(chain) | {"reward": [network for _, network in networks_in(reward)]}
    around = wrap or _called(tracker)
    with ExitStack() as stack:
        stack.enter_context(listening(tracker))
        stack.enter_context(tracker.watching(parts))
        stack.enter_context(patch.object(engine, "rollout", _remembering(tracker, engine.rollout)))
        for part, place, name in entrances(chain, reward):
            stack.enter_context(patch.object(place, name, around(part, getattr(place, name))))
        stack.enter_context(tracker)
        _mark_known(tracker, subject, parts)
        yield


def _called(tracker: Tracker) -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    def around(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            with tracker.call(part):
                return run(*args, **kwargs)

        return called

    return around


def _remembering(tracker: Tracker, rollout: Callable[..., Trajectory]) -> Callable[..., Trajectory]:
    """`Engine.rollout` that tells which tensors a trajectory consists of."""

    def remembering(*args: Any, **kwargs: Any) -> Trajectory:
        found = rollout(*args, **kwargs)
        for micro in found.micros:
            tracker.mark(_latents(micro), "latents")
        return found

    return remembering


def _latents(micro: MicroBatch) -> Iterator[Tensor | None]:
    for state in micro.states:
        yield from (state.x, state.history)
    yield from micro.std
    yield micro.reward_grad


def _mark_known(tracker: Tracker, subject: Subject, parts: dict[str, list[nn.Module]]) -> None:
    """Tell the tracker what is there before the step."""
    trainable = {id(p) for p in subject.chain.parameters()}
    for part, found in parts.items():
        for network in found:
            fixed = (p for p in network.parameters() if id(p) not in trainable)
            tracker.mark([*fixed, *network.buffers()], f"weights {part}")
    parameters = subject.chain.parameters()
    tracker.mark(parameters, "lora")
    tracker.mark((p.grad for p in parameters), "gradients")
    for state in subject.optimizer.state.values():
        tracker.mark((t for t in state.values() if isinstance(t, Tensor)), "optimizer")
