"""Rewards and methods from a cell's settings."""

from __future__ import annotations

import torch

from bench.base import registry
from bench.engine.method import Method
from bench.engine.reward import Reward
from bench.experiment.settings import Choice


def load_reward(choice: Choice, device: torch.device) -> Reward:
    """A registered reward with its settings."""
    cls = registry.load("reward", choice.name)
    return cls(cls.Config.model_validate(choice.config), device)


def load_method(choice: Choice, steps: int) -> Method:
    """A registered method with its settings, for chains of that many steps."""
    cls = registry.load("method", choice.name)
    return cls(cls.Config.model_validate(choice.config), steps)
