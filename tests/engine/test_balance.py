"""Term weights from earlier batches."""

from typing import Any

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.balance import LEAST, balanced, learn
from bench.engine.batch import Term
from bench.engine.plan import UNIT_WEIGHTS, Kind
from methods.rlr import Rlr, RlrConfig
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, batch_of, engine_of, gradient

SIZE = 40
MEANS = {Kind.FO: torch.full((SIZE,), 0.5), Kind.HO: torch.full((SIZE,), -0.2)}
SETTINGS: dict[str, Any] = {"h": 1, "eta": 1.0, "completion": "resampled", "fo_steps": 2, "drawn": 2}


def terms(first: float, half: float, variances: tuple[float, float] = (0.0, 0.0)) -> dict[str, Term]:
    return {"fo": Term(first, variances[0]), "ho": Term(half, variances[1])}


def test_norms_makes_terms_as_long_as_the_first_order_one() -> None:
    state: dict[str, Any] = {}
    for length in (8.0, 8.0):
        weights = balanced(UNIT_WEIGHTS, "norms", state)
        learn(terms(2.0, length * weights[Kind.HO]), weights, "norms", state)
    assert balanced(UNIT_WEIGHTS, "norms", state)[Kind.HO] == pytest.approx(2 / 8)
    half = balanced({**UNIT_WEIGHTS, Kind.HO: 0.5}, "norms", state)
    assert half[Kind.HO] == pytest.approx(1 / 8)  # the settings' weights are factors
    assert half[Kind.FO] == 1


def test_before_anything_is_known_other_terms_weigh_next_to_nothing() -> None:
    for balance in ("norms", "signal"):
        assert balanced(UNIT_WEIGHTS, balance, {}) == {Kind.FO: 1, Kind.HO: LEAST, Kind.ZO: LEAST}
    assert balanced(UNIT_WEIGHTS, "none", {}) == UNIT_WEIGHTS


def measured(noise: dict[Kind, float], weights: dict[Kind, float], rng: torch.Generator) -> dict[str, Term]:
    """Terms of known mean and noise as the engine reports them, from two micro-batches each."""
    found = {}
    for kind, mean in MEANS.items():
        halves = mean / 2 + noise[kind] / 2**0.5 * torch.randn(2, SIZE, generator=rng)
        whole = halves.sum(0)
        variance = max(0.0, 2 * float((halves**2).sum() - (whole**2).sum() / 2))
        w = weights[kind]
        found[kind.value.lower()] = Term(w * float(whole.norm()), w**2 * variance)
    return found


def weights_of_half_order(noise: float, batches: int = 300) -> list[float]:
    """The weight of the half-order term after each batch."""
    rng, state, found = torch.Generator().manual_seed(0), dict[str, Any](), list[float]()
    weights = balanced(UNIT_WEIGHTS, "signal", state)
    for _ in range(batches):
        terms = measured({Kind.FO: 0.2, Kind.HO: noise}, weights, rng)
        learn(terms, weights, "signal", state)
        weights = balanced(UNIT_WEIGHTS, "signal", state)
        found.append(weights[Kind.HO])
    return found


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.3])
def test_signal_finds_the_factor_of_least_squared_error(noise: float) -> None:
    """Less two standard errors of what some twenty batches have seen."""
    spread = {Kind.FO: 0.2, Kind.HO: noise}
    best = {k: float(m @ m) / (float(m @ m) + SIZE * spread[k] ** 2) for k, m in MEANS.items()}
    expected = best[Kind.HO] / best[Kind.FO]
    average = sum(found := weights_of_half_order(noise)[60:]) / len(found)
    # A batch's share has a standard deviation of 2 / sqrt(SIZE) at most, and twenty count.
    assert expected - 2 * 2 / (SIZE * 20) ** 0.5 / best[Kind.FO] < average < expected


@pytest.mark.parametrize("noise", [2.0, 8.0])
def test_a_term_of_which_no_signal_can_be_seen_is_as_good_as_left_out(noise: float) -> None:
    found = weights_of_half_order(noise)[5:]
    lengths = [w * (SIZE * noise**2) ** 0.5 / float(MEANS[Kind.FO].norm()) for w in found]
    assert sum(length < 1e-3 for length in lengths) > 0.8 * len(lengths)
    assert sum(length**2 for length in lengths) / len(lengths) < 0.05  # of the first-order term's square


def test_signal_needs_two_micro_batches() -> None:
    chain = ToyChain(4, 2, noise=0.7)
    method = Rlr(RlrConfig.model_validate(SETTINGS | {"balance": "signal"}), 4)
    with pytest.raises(BenchError, match=r"set train.micro_batch to half of a batch's samples"):
        list(method.updates(engine_of(chain, Bowl(), micro_batch=8), batch_of(8)))


def test_balance_is_relative_to_the_first_order_term() -> None:
    with pytest.raises(BenchError, match=r"rlr.balance compares terms with the first-order one"):
        Rlr(RlrConfig.model_validate(SETTINGS | {"balance": "norms", "fo": False, "drawn": None}), 4)


def test_a_batch_is_weighted_by_earlier_ones_alone() -> None:
    """The second batch's gradient is that of fixed weights, those that the first one left."""
    chain = ToyChain(4, 2, noise=0.7)
    engine = engine_of(chain, Bowl(), micro_batch=4)
    method = Rlr(RlrConfig.model_validate(SETTINGS | {"balance": "norms"}), 4)
    list(method.updates(engine, batch_of(8, 0)))
    weights = balanced(UNIT_WEIGHTS, "norms", method.state)
    list(method.updates(engine, batch_of(8, 1)))
    found = gradient(chain)
    fixed = Rlr(
        RlrConfig.model_validate(
            SETTINGS | {"weights": {k.value.lower(): w for k, w in weights.items() if k is not Kind.ZO}}
        ),
        4,
    )
    list(fixed.updates(engine, batch_of(8, 1)))
    assert torch.equal(gradient(chain), found)
    assert method.biased
    assert balanced(UNIT_WEIGHTS, "norms", method.state) != weights
