"""Memory and work of one optimizer step, simulated: the engine on fake tensors in the model's true shapes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch

from bench.engine.batch import Batch, Trajectory
from bench.engine.chain import Chain
from bench.engine.offload import offloading_by
from bench.engine.reward import Reward
from bench.experiment.settings import CellConfig, Training
from bench.measure.cost.fake_model import Faker
from bench.measure.cost.ledger import NETWORK
from bench.measure.cost.replay import Postponed, Rehearsals, Replay
from bench.measure.cost.step import PROMPT, Counting, Subject, labels, step, subject_of, tracked, trained
from bench.measure.cost.tracker import Tracker
from bench.measure.cost.usage import Usage, usage


class Simulator:
    """Simulates cells; those with the same model and reward share their networks and rehearsals."""

    def __init__(self, replay: bool = True) -> None:
        """replay: rehearse each kind of network call once, instead of running every one."""
        self.faker, self.replay = Faker(), replay
        self._chains: dict[str, Chain] = {}
        self._rewards: dict[str, Reward] = {}
        self._rehearsals: dict[str, Rehearsals] = {}

    def __call__(self, config: CellConfig) -> Usage:
        """What a trained cell's optimizer step takes. Raises BenchError if it cannot be simulated."""
        training = trained(config)
        with self.faker.working():
            chain, reward, rehearsals = self._load(config, training)
            subject = self._subject(config, training, chain, reward)
            return self._run(subject, training, rehearsals)

    def _load(self, config: CellConfig, training: Training) -> tuple[Chain, Reward, Rehearsals]:
        model, reward = config.model.config, training.reward
        full, scored = model.model_dump_json(), reward.model_dump_json()
        if full not in self._chains:
            self._chains[full] = self.faker.chain(model)
        if scored not in self._rewards:
            self._rewards[scored] = self.faker.reward(reward)
        # No call has another shape for more steps, or for offload.
        calls = model.model_dump_json(exclude={"steps", "offload"}) + scored
        return self._chains[full], self._rewards[scored], self._rehearsals.setdefault(calls, {})

    def _subject(self, config: CellConfig, training: Training, chain: Chain, reward: Reward) -> Subject:
        """A cell's objects as after its first step: gradients and the optimizer's state are there."""
        subject = subject_of(config, training, chain, reward, self.faker.normal)
        for p in chain.parameters():
            p.grad = self.faker.like(p)
        subject.optimizer.step()
        return subject

    def _run(self, subject: Subject, training: Training, rehearsals: Rehearsals) -> Usage:
        batch = Batch((PROMPT,) * training.train.batch, 0)
        tracker = Tracker(labels(subject.chain))
        postponed, chain = Postponed(subject.chain), subject.chain

        def played(part: str, run: Callable[..., Any]) -> Replay:
            parameters = subject.chain.parameters() if part == NETWORK else []
            known = rehearsals.setdefault(part, {})
            return Replay(tracker, self.faker.mode, part, run, parameters, postponed, known)

        with (
            patch.object(subject.engine, "rollout", _with_numbers(subject.engine.rollout)),
            postponed.standing_in(chain) if self.replay else nullcontext(),
            offloading_by(Counting(tracker)),
            tracked(tracker, subject, played if self.replay else None),
        ):
            work = step(subject, batch)
        return usage(tracker, subject, work)


def _with_numbers(rollout: Callable[..., Trajectory]) -> Callable[..., Trajectory]:
    """`Engine.rollout` whose rewards are numbers, since advantages and methods' statistics need some."""

    def rolled_out(*args: Any, **kwargs: Any) -> Trajectory:
        found = rollout(*args, **kwargs)
        found.rewards = found.signed = torch.linspace(0, 1, len(found.rewards))
        for micro in found.micros:
            micro.rewards = found.rewards[micro.index]
        return found

    return rolled_out
