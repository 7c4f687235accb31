"""Rollouts of more samples than graphs are built for, and batches that come down to what memory takes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.engine.batch import Perturbation, Report
from bench.engine.chain import State, Transition
from bench.engine.kept_graphs import Keep
from bench.engine.plan import Kind, Plan
from bench.run.evaluate import evaluate
from tests.engine.test_engine import make
from tests.engine.test_pullback import ADVANTAGES, MIXED
from tests.support.toy import ToyChain
from tests.support.toys import PROMPTS, Bowl, batch_of, engine_of, gradient

METHODS = [("rlr", {"h": 2}), ("rlr", {"h": 2, "shared": True}), ("full_bp", {}), ("ddpo", {}), ("zo", {})]


class Small(ToyChain):
    """A chain on a device whose memory takes so many rows, and fewer with a graph. seen: rows that fitted."""

    rows, with_graph = 5, 3
    seen: list[int]

    def transition(self, state: State, i: int, cond: Any, eta: Tensor, *cut: Any, **more: Any) -> Transition:
        """The toy's, where it fits."""
        most = self.with_graph if torch.is_grad_enabled() else self.rows
        if len(state.x) > most:
            raise torch.OutOfMemoryError(f"{len(state.x)} rows")
        self.seen.append(len(state.x))
        return super().transition(state, i, cond, eta, *cut, **more)


def one_batch(method: tuple[str, dict[str, Any]], chain: ToyChain, **options: Any) -> tuple[Tensor, Report]:
    """The gradient of one batch of eight samples."""
    engine = engine_of(chain, Bowl(), **options)
    report = next(iter(make(*method, chain.steps).updates(engine, batch_of(8))))
    return gradient(chain), report


@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rollout_batch_changes_no_gradient(method: tuple[str, dict[str, Any]], graphs: Keep) -> None:
    """The variances of terms are still those of micro-batches."""
    expected, report = one_batch(method, ToyChain(5, 2), micro_batch=2)
    found, other = one_batch(method, ToyChain(5, 2), micro_batch=2, rollout_batch=6, graphs=graphs)
    torch.testing.assert_close(found, expected)
    assert (other.forward, other.backward) == (report.forward, report.backward)
    for kind, term in report.terms.items():
        assert other.terms[kind].variance == pytest.approx(term.variance, rel=1e-3)


@pytest.mark.parametrize("graphs", ["auto", "joint"])
def test_samples_with_plans_of_their_own_fall_to_the_same_micro_batches(graphs: Keep) -> None:
    chain = ToyChain(4, 2, noise=0.7)

    def run(plans: Sequence[Plan], **options: Any) -> Tensor:
        engine = engine_of(chain, micro_batch=3, **options)
        trajectory = engine.rollout(plans, batch_of(len(plans)), Perturbation(scale=0.1))
        engine.gradient(trajectory, ADVANTAGES, weights={Kind.FO: 2.0, Kind.HO: -0.5, Kind.ZO: 3.0})
        return gradient(chain)

    found = run(MIXED, rollout_batch=7, graphs=graphs)
    torch.testing.assert_close(found, run(MIXED), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_auto_comes_down_to_what_fits_and_gives_the_same_gradient(
    method: tuple[str, dict[str, Any]], graphs: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = Small(5, 2)
    chain.seen = []
    found, _ = one_batch(method, chain, micro_batch="auto", rollout_batch="auto", graphs=graphs)
    expected, _ = one_batch(method, ToyChain(5, 2), micro_batch=8)
    torch.testing.assert_close(found, expected)
    assert (
        "no memory for 8 samples at once: 4 from now on (train.rollout_batch=auto)" in capsys.readouterr().err
    )
    assert max(chain.seen) <= 4


def test_memory_that_does_not_take_one_sample_or_the_number_that_was_asked_for_is_an_error() -> None:
    chain = Small(5, 2)
    chain.seen, chain.rows, chain.with_graph = [], 0, 0
    with pytest.raises(torch.OutOfMemoryError, match="1 rows"):
        one_batch(("zo", {}), chain, micro_batch="auto")
    chain.rows = 5
    with pytest.raises(torch.OutOfMemoryError, match="8 rows"):
        one_batch(("zo", {}), chain, micro_batch=8)


def test_evaluation_comes_down_to_what_fits_and_finds_the_same() -> None:
    class Pictures(Small):
        """Its pictures are its latents."""

        def decode(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
            """[B, 3, 1, 2]."""
            return x.sigmoid().reshape(-1, 1, 1, 2).expand(-1, 3, 1, 2)

    chain = Pictures(5, 2)
    chain.seen = []

    def found(batch: Any) -> Any:
        return evaluate(chain, {"bowl": Bowl()}, PROMPTS, seed=0, batch=batch, images_per_prompt=3)

    whole, parts = found("auto"), found(3)
    assert {3} == set(chain.seen)
    assert [row["score"] for row in whole.rows] == pytest.approx([row["score"] for row in parts.rows])
    assert torch.equal(whole.images, parts.images)
