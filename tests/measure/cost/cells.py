"""Cells to profile, as the command line makes them."""

from bench.experiment import request
from bench.measure.cost.plan import PlannedCosts, plan


def planned(
    model: str,
    methods: str,
    *settings: str,
    batch: int | None = 4,
    graphs: str | None = None,
    reward: str | None = None,
) -> PlannedCosts:
    """Simulated cells of some methods. settings: as --set."""
    options = request.Options(methods=methods, model=model, reward=reward, seeds="0", settings=settings)
    return plan(request.build(options), False, batch, graphs)
