"""What runs and is worth less than it might be: pairs that half precision cannot tell apart, noise that a
solver does not inject."""

from typing import Any

import pytest

from bench.experiment.checks import cautions
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all


def told(methods: str, *settings: str) -> list[str]:
    """The cautions for these methods on the embedded model."""
    options: Any = {"methods": methods, "settings": settings}
    cells = resolve_all(build(Options(**options)).combinations)
    return cautions(
        (c.config.training.method, c.config.model) for c in cells if c.config.training is not None
    )


@pytest.mark.parametrize(("dtype", "least"), [("half", 0.01), ("float16", 0.01), ("bfloat16", 0.1)])
def test_close_pairs_in_half_precision_are_told_with_what_to_set(dtype: str, least: float) -> None:
    found = told("zo-antithetic,rlr-antithetic,zo,rlr", f"model.dtype={dtype}", "rlr-antithetic.scale=1e-4")
    assert len(found) == 2
    assert found[0].startswith(f"zo-antithetic on tiny: a pair at scale 0.001 differs by less than {dtype}")
    assert f"--set rlr-antithetic.scale={least} or more, or --set model.dtype=float32" in found[1]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("model.dtype=half", "zo-antithetic.scale=1e-2", "rlr-antithetic.scale=0.1"),
        ("model.dtype=bfloat16", "zo-antithetic.scale=0.1", "rlr-antithetic.scale=0.2"),
        ("model.dtype=half", "zo-antithetic.scale=1e-2", "rlr-antithetic.completion=none"),
    ],
)
def test_others_are_not(settings: tuple[str, ...]) -> None:
    assert told("zo-antithetic,rlr-antithetic", *settings) == []


def test_noise_that_the_solver_does_not_inject_is_told() -> None:
    cells = resolve_all(
        build(
            Options(methods="vader,full_bp", model="tiny-flow", settings=("model.solver=euler",))
        ).combinations
    )
    told = cautions((c.config.training.method, c.config.model) for c in cells if c.config.training)
    assert told == [
        "vader on tiny-flow: vader.eta=1 has no effect, as euler injects no noise: "
        "--set model.solver=flow_sde"
    ]
