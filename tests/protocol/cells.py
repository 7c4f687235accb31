"""Made-up results of planned cells: what a training would have left behind."""

from collections.abc import Mapping
from pathlib import Path

from bench.base.files import append_rows
from bench.experiment.combinations import Combination
from bench.experiment.resolve import resolve
from bench.protocol.suite import Part, Run
from bench.protocol.tune import Trial
from bench.run.store import Cause, CellDir, ResultsDir, WorkState


def end_trial(part: Part, trial: Trial, score: float | None, cause: Cause | None = None) -> None:
    """A trial with this held-out score; None: it failed, by itself unless a cause says otherwise."""
    out = part.tuning.experiment.out
    end(out, trial.combination, {1: {"a": score}} if score is not None else {}, part.workload.reward, cause)


def end_run(part: Part, run: Run, scores: Mapping[int, Mapping[str, float]]) -> CellDir:
    """A final run with these evaluations: step → prompt → score of both its pictures."""
    assert run.combination is not None
    return end(part.everything.out, run.combination, scores, part.workload.reward)


def end(
    out: Path,
    combination: Combination,
    scores: Mapping[int, Mapping[str, float]],
    reward: str,
    cause: Cause | None = None,
) -> CellDir:
    """The last cell of a combination: done, or failed if there are no scores; cause None: it diverged."""
    planned = resolve(combination)[-1]
    cell = ResultsDir(out).cell(planned.id)
    cell.write_config(planned.config)
    names = (reward, "diversity")
    rows = [
        {"step": step, "prompt": prompt, "image": image, "reward": name, "score": score}
        for step, found in scores.items()
        for prompt, score in found.items()
        for image in (0, 1)
        for name in names
    ]
    append_rows(cell.evaluations, rows)
    last = max(scores, default=0)
    if scores:
        cell.write_status(WorkState.DONE, last)
    else:
        cell.write_status(WorkState.FAILED, last, message="diverged", cause=cause or Cause.NOT_FINITE)
    return cell
