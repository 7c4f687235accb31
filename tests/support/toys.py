"""The closed-form chain's company: rewards, batches and shortcuts that the tests of the core share."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.chain import Chain
from bench.engine.engine import Engine
from bench.engine.reward import Reward

PROMPTS = ("a red apple", "a fox on a blue background", "a dog face", "two owls")


class Bowl(Reward):
    """x²/2 + 0.3 sin 2x, summed over latents: a reward whose gradient the toy chain's noise does not
    drown."""

    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "a number"

    def __init__(self) -> None:
        """Nothing to load."""

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of media [B, …]."""
        return (media.square() / 2 + 0.3 * torch.sin(2 * media)).flatten(1).sum(1)


class Pattern(Reward):
    """Likeness of a picture to a fixed random pattern; `detached`: as if it came out of a JPEG encoder."""

    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "a number"

    def __init__(self, detached: bool = False) -> None:
        """Nothing to load."""
        self.detached = detached

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of media [B, …]."""
        pattern = torch.randn(media[0].numel(), generator=torch.Generator().manual_seed(1))
        score = (media.flatten(1) * pattern).sum(1) + 0.05 * media.flatten(1).square().sum(1)
        return score.detach() if self.detached else score


class Distance(Pattern):
    """The same number, to be made small."""

    higher_is_better = False


def fill(chain: Chain, spread: float, seed: int = 7) -> None:
    """Overwrite the trainable parameters by normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in chain.parameters():
            p.copy_(spread * torch.randn(p.shape, generator=generator))


def batch_of(count: int, step: int = 0) -> Batch:
    """`count` samples, two of each prompt."""
    return Batch(tuple(PROMPTS[b // 2 % len(PROMPTS)] for b in range(count)), step)


def gradient(chain: Chain) -> Tensor:
    """The ascent direction that the engine left in `.grad`, flat."""
    return -torch.cat([p.grad.flatten() for p in chain.parameters() if p.grad is not None])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenated, flat, detached."""
    return torch.cat([t.detach().flatten() for t in tensors])


def engine_of(chain: Chain, reward: Reward | None = None, *, micro_batch: int = 64, **options: Any) -> Engine:
    """An engine at seed 0."""
    return Engine(chain, reward or Bowl(), seed=0, micro_batch=micro_batch, **options)
