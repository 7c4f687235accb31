"""What every reward looks like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from bench.base.errors import BenchError
from bench.base.strict import Strict

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Media = Literal["image", "video"]


class Reward(ABC):
    """Scores media against prompts. Methods maximise `sign * score`, tables show the raw score.

    Subclasses live one per file in rewards/, define a frozen `Config` and take it with a device.
    """

    name: ClassVar[str]  # what the command line calls it; read from the file, so written out
    parameters: ClassVar[int] = 0  # about how many numbers it loads, for `doctor`; written out, too
    Config: ClassVar[type[Strict]] = Strict
    differentiable: ClassVar[bool]  # whether it can be; its Config may narrow that: `is_differentiable`
    higher_is_better: bool = True
    media: Media = "image"  # what `score` takes; its Config may say otherwise: `media_of`
    scale: ClassVar[str]  # what the number is: unit and usual range, for tables

    @abstractmethod
    def __init__(self, config: Strict, device: torch.device) -> None:
        """Load the reward. Raises BenchError, naming the way to get them, when weights are missing."""

    @abstractmethod
    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of media in [0, 1], one prompt each: images [B, 3, H, W], or videos [B, F, 3, H, W]
        where `media` says so. `scores` calls it for either.

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


@runtime_checkable
class SaysMedia(Protocol):
    """Settings that decide what their reward scores."""

    @property
    def media(self) -> Media:
        """Images or whole videos, with these settings."""
        ...


def media_of(reward: type[Reward], config: Strict) -> Media:
    """What a reward with these settings scores: what they say, else what its class says."""
    return config.media if isinstance(config, SaysMedia) else reward.media


@runtime_checkable
class ChecksPrompts(Protocol):
    """Settings of a reward that cannot score every prompt."""

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise BenchError for a prompt that it cannot score."""


def check_prompts(config: object, prompts: Sequence[str]) -> None:
    """Raise BenchError for a prompt that a reward with these settings says it cannot score."""
    if isinstance(config, ChecksPrompts):
        config.check_prompts(prompts)


def scores(reward: Reward, media: Tensor, prompts: Sequence[str]) -> Tensor:
    """Scores [B] of images [B, 3, H, W] or videos [B, F, 3, H, W]: a reward of images gives a video the mean
    over its frames.

    The reward gets a copy of its own, and may write into it. The frames are a batch of images to it, which it
    takes in chunks of its own (`chunk`). Raises BenchError for a reward of videos that is given images.
    """
    if reward.media == "video" and media.ndim != 5:
        raise BenchError(f"a reward of videos cannot score pictures, {list(media.shape)}")
    if reward.media == "video" or media.ndim != 5:
        return reward.score(media.clone(), list(prompts))
    frames = media.shape[1]
    texts = [prompt for prompt in prompts for _ in range(frames)]
    return reward.score(media.flatten(0, 1).clone(), texts).unflatten(0, (-1, frames)).mean(dim=1)
