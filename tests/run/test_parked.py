"""Rewards that only evaluations need wait in main memory: networks that record where they are sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.engine.reward import Reward
from bench.engine.world import World
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.run import process
from bench.run.parked import Parked
from bench.run.session import Session
from bench.run.store import CellDir
from bench.run.work import CellWork
from rewards.weighted_sum import WeightedReward

GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Recording(nn.Module):
    """Knows where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.went: list[str] = []

    def to(self, device: Any) -> Any:  # type: ignore[override]
        self.went.append(str(device))
        return self


class Scorer(Reward):
    differentiable, scale = True, "a number"

    def __init__(self) -> None:
        self.model, self.heads = Recording(), [Recording()]

    def score(self, media: Any, prompts: Any) -> Any:
        return media.flatten(1).mean(1)

    @property
    def went(self) -> list[str]:
        assert self.model.went == self.heads[0].went
        return self.model.went


def test_it_is_on_the_device_within_the_context_alone() -> None:
    parked, reward = Parked(GPU), Scorer()
    parked.park(reward)
    assert reward.went == ["cpu"]
    with parked.here():
        assert reward.went == ["cpu", "cuda"]
    assert reward.went == ["cpu", "cuda", "cpu"]


def test_it_is_parked_again_after_an_evaluation_that_failed() -> None:
    parked, reward = Parked(GPU), Scorer()
    parked.park(reward)
    with pytest.raises(ZeroDivisionError), parked.here():
        raise ZeroDivisionError
    assert reward.went[-1] == "cpu"


def test_on_a_cpu_nothing_is_moved() -> None:
    parked, reward = Parked(CPU), Scorer()
    parked.park(reward)
    with parked.here():
        pass
    assert reward.went == []


def test_the_terms_of_a_sum_are_moved() -> None:
    parked, term = Parked(GPU), Scorer()
    reward = WeightedReward.__new__(WeightedReward)
    reward.terms = [(1.0, term)]
    parked.park(reward)
    assert term.went == ["cpu"]


@pytest.mark.parametrize(
    ("method", "parked"), [("zo", {"colourfulness", "jpeg"}), ("doodl", set()), (None, set())]
)
def test_a_session_parks_what_its_training_does_not_need(
    method: str | None, parked: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve_all(build(Options(methods=method or "zo", settings=("model.steps=2",))).combinations)
    config = next(c.config for c in found if (c.config.training is None) == (method is None))
    kept: list[str] = []
    monkeypatch.setattr(Parked, "park", lambda self, reward: kept.append(reward.name))
    session = Session(CellDir(tmp_path), config, World(), CPU)
    assert set(kept) == parked
    assert set(session.rewards) == {"clip", "colourfulness", "jpeg"}


@pytest.mark.parametrize("own", [None, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_a_process_lets_the_gpus_memory_grow_unless_the_user_says_how(
    own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve_all(build(Options(methods="zo")).combinations)[0]
    cell = CellDir(tmp_path / "cell")
    cell.path.mkdir()
    for name in process.ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(own, "backend:cudaMallocAsync")
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(process, "_cold", lambda command, output, environment: seen.append(environment))
    process.Process(CellWork(cell, found.config, "a"), process.HowToRun(), "bench run")
    values = {name: seen[0].get(name) for name in process.ALLOCATOR_VARIABLES}
    expected = (
        {process.ALLOCATOR_VARIABLES[0]: "expandable_segments:True"}
        if own is None
        else {own: os.environ[own]}
    )
    assert {name: value for name, value in values.items() if value is not None} == expected
