"""The prompts of each optimizer step."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench.base.errors import BenchError


class PromptSampler:
    """Goes through the training prompts epoch by epoch, in an order shuffled anew for each.

    A pure function of (seed, step), so a resumed run sees the same prompts as an uninterrupted one. An epoch
    is ⌈n / prompts_per_step⌉ steps and shows every prompt; where n is no multiple, its last step is filled up
    with prompts of its first. No step shows a prompt twice, unless it needs more prompts than there are.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        """prompts: the training prompts, at least one."""
        if not prompts:
            raise BenchError("there are no training prompts to sample from")
        self.prompts = tuple(prompts)
        self._shuffled: tuple[tuple[int, int], tuple[str, ...]] | None = None  # last epoch's key and order

    def batch(
        self, step: int, *, seed: int, prompts_per_step: int, samples_per_prompt: int
    ) -> tuple[str, ...]:
        """The prompts of optimizer step 0, 1, …: samples_per_prompt adjacent copies of each."""
        if step < 0 or prompts_per_step < 1 or samples_per_prompt < 1:
            raise ValueError(f"step {step}, {prompts_per_step} prompts, {samples_per_prompt} samples of each")
        n = len(self.prompts)
        steps_per_epoch = -(-n // prompts_per_step)
        epoch, place = divmod(step, steps_per_epoch)
        order = self._order(seed, epoch)
        first = place * prompts_per_step
        slots = list(range(first, first + prompts_per_step))
        if prompts_per_step > n:
            slots = sorted(slots, key=lambda slot: slot % n)  # copies of a prompt stay together
        return tuple(order[slot % n] for slot in slots for _ in range(samples_per_prompt))

    def _order(self, seed: int, epoch: int) -> tuple[str, ...]:
        if self._shuffled is None or self._shuffled[0] != (seed, epoch):
            # Sorting by random() rather than shuffle(): only random()'s sequence is promised across Pythons.
            rng = random.Random(f"prompts/{seed}/{epoch}")
            places = [(rng.random(), i) for i in range(len(self.prompts))]
            self._shuffled = ((seed, epoch), tuple(self.prompts[i] for _, i in sorted(places)))
        return self._shuffled[1]
