"""Latents that are not finite end with the step's name, wherever they leave the chain."""

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError, NotFinite
from bench.engine.batch import Perturbation
from bench.engine.chain import State, Transition
from bench.engine.finite import not_finite
from bench.engine.kept_graphs import Keep
from bench.engine.plan import Kind, Plan, Segment
from bench.run.evaluate import noise, sample_images
from tests.support.toy import ToyChain
from tests.support.toys import PROMPTS, Bowl, batch_of, engine_of

pytestmark = pytest.mark.silent


class Breaking(ToyChain):
    """The closed-form chain; what step `at` leaves is not finite in the given row."""

    def __init__(self, at: int, row: int, value: float) -> None:
        super().__init__(steps=6)
        self.at, self.row, self.value = at, row, value

    def transition(self, state: State, i: int, *arguments: Any, **options: Any) -> Transition:
        step = super().transition(state, i, *arguments, **options)
        broken = torch.zeros_like(step.mean)
        broken[self.row] = self.value if i == self.at else 0.0
        return Transition(step.mean + broken, step.std, step.history)


CASES = pytest.mark.parametrize(
    ("at", "row", "value"), [(0, 2, float("nan")), (3, 0, float("inf")), (5, 1, -float("inf"))]
)
FO = Plan((Segment(Kind.FO, 0, 6),), (0.0,) * 6)


@CASES
@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
def test_training_on_latents_that_are_not_finite_names_the_step(
    at: int, row: int, value: float, graphs: Keep
) -> None:
    """And does not blame the reward, which never sees them."""
    reward: Any = pytest.fail
    batch = batch_of(4, step=7)
    engine = engine_of(Breaking(at, row, value), reward, graphs=graphs)
    with pytest.raises(
        NotFinite, match=f"^batch 7: the latents of 1 of 4 samples .* from step {at} of 6"
    ) as caught:
        engine.rollout([FO] * 4, batch)
    assert f"the first of {batch.prompts[row]!r}" in str(caught.value)


@CASES
def test_sampling_latents_that_are_not_finite_names_the_step(at: int, row: int, value: float) -> None:
    chain = Breaking(at, row, value)
    start = noise(chain, 0, [(p, 0) for p in range(4)])
    with pytest.raises(NotFinite, match=rf"^the latents of 1 of 4 samples .* from step {at} of 6") as caught:
        sample_images(chain, PROMPTS, start)
    assert f"the first of {PROMPTS[row]!r}" in str(caught.value)


def test_finite_latents_and_slopes_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every step: on a GPU that would wait for the device."""
    calls = list[tuple[int, ...]]()
    isfinite = Tensor.isfinite

    def counted(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return isfinite(x)

    monkeypatch.setattr(Tensor, "isfinite", counted)
    engine_of(ToyChain(steps=6)).rollout([FO] * 4, batch_of(4))
    sample_images(ToyChain(steps=6), PROMPTS, torch.zeros(4, 2))
    assert calls == [(4, 2), (4, 2), (4, 2)]  # latents, the reward's gradient, latents


class Steep(Bowl):
    """A reward whose gradient is not finite on the second of two pictures, although its score is.

    value: added to all scores.
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of media [B, …]."""
        return (
            super().score(media, prompts)
            + self.value
            + (media * torch.tensor([[1.0, 1], [1, 0]])).sqrt().sum(1)
        )


def test_a_finite_rewards_gradient_that_is_not_finite_is_blamed_on_the_reward() -> None:
    """And not where the reward is not finite itself, which is told with the rewards."""
    x = torch.ones(2, 2)
    for value in (0.0, float("nan")):
        roller = engine_of(ToyChain(steps=6), Steep(value)).roller
        micro = roller.prepare([0, 1], [FO] * 2, batch_of(4, step=7), Perturbation())
        if value == 0.0:
            told = (
                r"^batch 7: the reward's gradient is not finite on 1 of 2 samples, the first of 'a red apple'"
            )
            with pytest.raises(BenchError, match=f"{told}.*dtype=float32"):
                roller.reward_of(micro, [0, 1], x, need_grad=True)
        else:
            rewards, _ = roller.reward_of(micro, [0, 1], x, need_grad=True)
            assert bool(rewards.isnan().all())


@pytest.mark.parametrize(
    ("dtype", "decoder_dtype", "told"),
    [
        (torch.float32, torch.float32, r"^training has diverged: a smaller train\.lr"),
        (
            torch.bfloat16,
            torch.float32,
            r"in bfloat16 and the decoder in float32: --set model\.dtype=float32",
        ),
        (torch.float16, torch.float16, r"in float16, scaled to fit .*: --set model\.dtype=float32"),
        (None, None, r"^training has diverged"),
    ],
)
def test_a_gradient_that_is_not_finite_names_the_dtype_to_set(
    dtype: torch.dtype | None, decoder_dtype: torch.dtype | None, told: str
) -> None:
    says = {} if dtype is None else {"dtype": dtype, "decoder_dtype": decoder_dtype}
    assert re.search(told, not_finite(SimpleNamespace(**says)))
