"""Latents that are not finite end with the step's name, wherever they leave the chain."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import NotFinite
from bench.engine.chain import State, Transition
from bench.engine.kept_graphs import Keep
from bench.engine.plan import Kind, Plan, Segment
from bench.run.evaluate import noise, sample_images
from tests.support.toy import ToyChain
from tests.support.toys import PROMPTS, batch_of, engine_of

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


def test_finite_latents_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every step: on a GPU that would wait for the device."""
    calls = list[tuple[int, ...]]()
    isfinite = Tensor.isfinite

    def counted(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return isfinite(x)

    monkeypatch.setattr(Tensor, "isfinite", counted)
    engine_of(ToyChain(steps=6)).rollout([FO] * 4, batch_of(4))
    sample_images(ToyChain(steps=6), PROMPTS, torch.zeros(4, 2))
    assert calls == [(4, 2), (4, 2)]
