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


@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
def test_signal_finds_the_factor_of_least_squared_error(noise: float) -> None:
    """Two terms of known mean and noise, measured as the engine does: from two micro-batches each."""
    rng, state = torch.Generator().manual_seed(0), dict[str, Any]()
    means = {Kind.FO: torch.full((40,), 0.5), Kind.HO: torch.full((40,), -0.2)}
    spread = {Kind.FO: 0.1, Kind.HO: noise}
    weights = balanced(UNIT_WEIGHTS, "signal", state)
    found: list[float] = []
    for _ in range(400):
        measured = {}
        for kind, mean in means.items():
            halves = mean / 2 + spread[kind] / 2**0.5 * torch.randn(2, 40, generator=rng)
            whole = halves.sum(0)
            variance = 2 * float((halves**2).sum() - (whole**2).sum() / 2)
            w = weights[kind]
            measured[kind.value.lower()] = Term(w * float(whole.norm()), w**2 * variance)
        learn(measured, weights, "signal", state)
        weights = balanced(UNIT_WEIGHTS, "signal", state)
        found.append(weights[Kind.HO])
    best = {k: float(m @ m) / (float(m @ m) + 40 * spread[k] ** 2) for k, m in means.items()}
    # Never longer than the first-order term; from few batches, so that single weights scatter.
    longest = (float(means[Kind.FO] @ means[Kind.FO]) / (40 * (0.04 + noise**2))) ** 0.5
    expected = min(best[Kind.HO] / best[Kind.FO], longest)
    average = torch.tensor(found[40:])
    error = float(average.std()) / (len(average) / 20) ** 0.5  # sums forget over some twenty batches
    assert float(average.mean()) == pytest.approx(expected, abs=4 * error + 0.02 * expected)


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
    method = Rlr(RlrConfig.model_validate(SETTINGS | {"balance": "signal"}), 4)
    list(method.updates(engine, batch_of(8, 0)))
    weights = balanced(UNIT_WEIGHTS, "signal", method.state)
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
    assert balanced(UNIT_WEIGHTS, "signal", method.state) != weights
