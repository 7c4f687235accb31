"""What every reward looks like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from bench.schema import Strict

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Reward(ABC):
    """Scores media against prompts. Methods maximise `sign * score`, tables show the raw score.

    Subclasses live one per file in rewards/, define a frozen `Config` and take it with a device.
    """

    Config: ClassVar[type[Strict]] = Strict
    differentiable: ClassVar[bool]
    higher_is_better: ClassVar[bool] = True
    scale: ClassVar[str]  # what the number is: unit and usual range, for tables

    @abstractmethod
    def __init__(self, config: Strict, device: torch.device) -> None:
        """Load the reward. Raises BenchError, naming the way to get them, when weights are missing."""

    @abstractmethod
    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of media in [0, 1], images [B, 3, H, W], one prompt each.

        Differentiable rewards keep the graph from media to the score; grad mode belongs to the caller.
        Rows are independent: the score of one does not depend on the others.
        """
