"""A model of videos that takes no time."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.engine.chain import State, Transition
from tests.support.toy import ToyChain, ToyCondition

FRAMES, SIZE = 4, 16


class VideoToy:
    """A toy chain over F·3 numbers; a frame is one colour. `pictures`: decodes to [B, 3, H, W] instead."""

    def __init__(self, pictures: bool = False) -> None:
        self.chain, self.pictures = ToyChain(steps=2, dim=3 * FRAMES), pictures
        self.steps, self.device, self.latent_shape = 2, self.chain.device, self.chain.latent_shape
        self.loaded: list[Path] = []

    def condition(self, prompts: Sequence[str]) -> ToyCondition:
        return self.chain.condition(prompts)

    def prior(self, noise: Tensor) -> State:
        return self.chain.prior(noise)

    def transition(self, state: State, i: int, cond: ToyCondition, eta: Tensor) -> Transition:
        return self.chain.transition(state, i, cond, eta)

    def decode(self, x: Tensor) -> Tensor:
        media = torch.sigmoid(x).reshape(len(x), FRAMES, 3, 1, 1).expand(-1, -1, -1, SIZE, SIZE)
        return media[:, 0] if self.pictures else media

    def load_lora(self, directory: Path) -> None:
        self.loaded.append(directory)
