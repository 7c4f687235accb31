"""Numbers in settings are numbers."""

from typing import Any, Literal

import pytest
from pydantic import Field

from bench.base.errors import BenchError
from bench.base.layers import Layers
from bench.base.strict import LARGEST, Strict
from bench.experiment.request import Options, build

pytestmark = pytest.mark.silent


class Inner(Strict):
    """Nested."""

    rate: float = 1.0


class Settings(Strict):
    """One of each kind."""

    rate: float = 1.0
    count: int = 1
    maybe: float | None = None
    several: tuple[int, ...] = ()
    flag: bool = False
    either: bool | int = 1
    word: Literal["auto", True] = "auto"
    free: dict[str, Any] = Field(default_factory=dict)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"rate": float("inf")}, "rate: input should be a finite number (got inf)"),
        ({"maybe": float("nan")}, "maybe: input should be a finite number (got nan)"),
        ({"inner": {"rate": float("-inf")}}, "inner.rate: input should be a finite number (got -inf)"),
        ({"rate": True}, "rate: true is no value for it (got True)"),
        ({"count": False}, "count: false is no value for it (got False)"),
        ({"several": [1, True]}, "several: true is no value for it (got [1, True])"),
        ({"maybe": True}, "maybe: true is no value for it (got True)"),
        ({"count": 10**22}, f"count: whole numbers go up to {LARGEST} (got {10**22})"),
    ],
)
def test_what_is_no_number_is_refused_by_name(tree: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError) as error:
        Layers().add("file", "", tree).build(Settings)
    assert str(error.value) == f"file: {told}"


def test_what_may_be_true_stays_true() -> None:
    tree = {"flag": True, "either": True, "word": True, "free": {"x": True, "y": 10**22}}
    assert Layers().add("file", "", tree).build(Settings).model_dump() | tree == Settings(**tree).model_dump()


@pytest.mark.parametrize("seeds", ["12345678901234567890123", "0,9223372036854775808"])
def test_seed_beyond_64_bits_is_refused_before_anything_runs(seeds: str) -> None:
    with pytest.raises(BenchError, match=r"--seeds: seeds"):
        build(Options(seeds=seeds))
