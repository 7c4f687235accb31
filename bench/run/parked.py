"""Rewards that only evaluations need: on a GPU they wait in main memory while there is training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.base.networks import networks_in
from bench.engine.reward import Reward


class Parked:
    """Rewards whose networks are in main memory, but within `here()`. On a CPU nothing is moved."""

    def __init__(self, device: torch.device) -> None:
        """device: where they are when they score."""
        self._device = device
        self._rewards: list[Reward] = []

    def park(self, reward: Reward) -> None:
        """Move a reward's networks to main memory. What else it holds on the device stays there."""
        self._rewards.append(reward)
        self._move(reward, torch.device("cpu"))

    @contextmanager
    def here(self) -> Iterator[None]:
        """Within the context all of them are on the device."""
        try:
            for reward in self._rewards:
                self._move(reward, self._device)
            yield
        finally:
            for reward in self._rewards:
                self._move(reward, torch.device("cpu"))

    def _move(self, reward: Reward, to: torch.device) -> None:
        if self._device.type != "cpu":
            for _, network in networks_in(reward):
                network.to(to)
