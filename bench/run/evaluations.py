"""Whether eval.jsonl holds every line of every evaluation. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.base.files import Record
from bench.experiment.settings import CellConfig

DIVERSITY = "diversity"


def incomplete(rows: Sequence[Record], config: CellConfig) -> list[int]:
    """Steps of evaluations that lack lines, in order.

    Every reward has a line per prompt and picture, and so has diversity with several pictures per prompt. All
    evaluations of a cell are of the same prompts.
    """
    names = [choice.name for choice in config.eval_rewards]
    names += [DIVERSITY] if config.eval.images_per_prompt > 1 else []
    counts = Counter((row["step"], row["reward"]) for row in rows)
    prompts = config.eval.prompts or len({row["prompt"] for row in rows if row["prompt"] is not None})
    steps = sorted({step for step, _ in counts})
    # A set may have fewer held-out prompts than were asked for: as many as the fullest evaluation has.
    most = max(counts.values(), default=0)
    expected = min(prompts * config.eval.images_per_prompt, most) if config.eval.prompts else most
    return [step for step in steps if any(counts[step, name] < expected for name in names)]


def first_incomplete(rows: Sequence[Record], config: CellConfig, reached: int, done: bool) -> int | None:
    """The step of the first evaluation that is not whole, among those up to the step `reached`; None: none.

    done: whether the cell is, so that there has to be an evaluation at its last step.
    """
    lacking = [step for step in incomplete(rows, config) if step <= reached]
    if not lacking and done and not any(row["step"] == reached for row in rows):
        return reached
    return min(lacking, default=None)
