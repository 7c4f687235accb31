"""Planning in this process."""

from bench.experiment import request
from bench.experiment.request import Options
from bench.run import experiment
from tests.support.running import DOTS


def planned(**options: object) -> experiment.PlannedRun:
    """Plan in this process, on the test model unless told otherwise."""
    defaults: dict[str, object] = {"methods": "push", "model": str(DOTS)}
    return experiment.plan(request.build(Options(**(defaults | options))), force=False)  # type: ignore[arg-type]
