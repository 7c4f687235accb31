"""What every reward looks like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from bench.schema import Strict

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Reward(ABC):
    """Scores media against prompts. Methods maximise `sign * score`, tables show the raw score.

    Subclasses live one per file in rewards/, define a frozen `Config` and take it with a device.
    """

    Config: ClassVar[type[Strict]] = Strict
    differentiable: ClassVar[bool]  # whether it can be; its Config may narrow that: `is_differentiable`
    higher_is_better: bool = True
    media: ClassVar[str] = "image"  # what `score` takes: "image" [B, 3, H, W], "video" [B, F, 3, H, W]
    scale: ClassVar[str]  # what the number is: unit and usual range, for tables

    @abstractmethod
    def __init__(self, config: Strict, device: torch.device) -> None:
        """Load the reward. Raises BenchError, naming the way to get them, when weights are missing."""

    @abstractmethod
    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of media in [0, 1], images [B, 3, H, W] or videos as `media` says, one prompt each.

        Differentiable rewards keep the graph from media to the score; grad mode belongs to the caller.
        Rows are independent: the score of one does not depend on the others.
        """


@runtime_checkable
class SaysDifferentiable(Protocol):
    """Settings that decide whether their reward has a gradient."""

    @property
    def differentiable(self) -> bool:
        """Whether it has, with these settings."""
        ...


def is_differentiable(reward: type[Reward], config: Strict) -> bool:
    """Whether a reward with these settings has a gradient: what they say, else what its class says."""
    return config.differentiable if isinstance(config, SaysDifferentiable) else reward.differentiable
