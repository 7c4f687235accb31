"""How long a cell will take, from what earlier runs on this machine measured, and how much memory."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.files import Record, read_rows
from bench.base.layers import Tree
from bench.engine.at_once import least
from bench.experiment.model_files import model_file
from bench.experiment.settings import CellConfig, Training
from bench.models.sizes import Batches, Memory, Use, memory
from bench.run.spent import Counters, Limit
from bench.run.store import CellDir

SPARE = 0.85  # of a GPU's memory: what a cell may take by the estimate, which leaves out CUDA and pieces


class Earlier:
    """What the cells below a directory of experiments took; each is read once, however many are asked for."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments

    @cached_property
    def seen(self) -> list[tuple[CellDir, CellConfig, Record]]:
        """Those that have trained, oldest first, each with the last line of its metrics."""
        found: list[tuple[CellDir, CellConfig, Record]] = []
        for log in sorted(self._experiments.glob("*/cells/*/metrics.jsonl"), key=lambda p: p.stat().st_mtime):
            try:
                config = CellDir(log.parent).config()
            except BenchError:
                continue  # written by another schema version: no help here, and its own command will say so
            rows = read_rows(log)
            if rows and config.training is not None:
                found.append((CellDir(log.parent), config, rows[-1]))
        return found

    @cached_property
    def _last(self) -> dict[str, Record]:
        """Key → the last row of the newest cell that has it."""
        return {_key(config, config.training): row for _, config, row in self.seen if config.training}

    def seconds_left(self, config: CellConfig, so_far: Path) -> float | None:
        """Of training, from the newest cell with the same method, model and batch; None if there is none.

        so_far: the cell's metrics.jsonl.
        """
        training = config.training
        key = None if training is None else _key(config, training)
        if training is None or key not in self._last:
            return None
        limit, known, rows = Limit(training.train), Counters.of(self._last[key]), read_rows(so_far)
        done = limit.position(Counters.of(rows[-1])) if rows else 0
        pace = limit.position(known)  # of a plugin that counts no evaluations 0
        return known.seconds / pace * max(0, limit.end - done) if pace else None


def _key(config: CellConfig, training: Training) -> str:
    """Two cells with the same key cost the same per optimizer step."""
    model = config.model.config.model_dump(mode="json", exclude={"source", "path", "revision"})
    train = training.train.model_dump(
        mode="json",
        include={
            "prompts_per_step",
            "samples_per_prompt",
            "micro_batch",
            "rollout_batch",
            "reward_chunk",
            "graphs",
        },
    )
    parts = [training.method.model_dump(mode="json"), config.model.name, model, train, config.threads]
    return json.dumps(parts, sort_keys=True)


def memory_of(config: CellConfig, gpu: bool) -> Memory | None:
    """About what a cell takes: of the GPU, or of main memory on a CPU. None: nothing is known of it."""
    model, training = config.model, config.training
    if not gpu and (stated := model_file(model.name)[1].memory) is not None:
        return Memory(stated, True)
    rewards = {
        choice.name: registry.load("reward", choice.name).Config.model_validate(choice.config)
        for choice in config.eval_rewards
    }
    use: Use = "none"
    if training is not None:
        cls = registry.load("method", training.method.name)
        method = cls(cls.Config.model_validate(training.method.config), model.config.steps)
        use = "reward gradient" if method.needs_reward_grad else "network gradient"
    trained = 0 if training is None else least(training.train.micro_batch)
    batches = Batches(trained, least(config.eval.batch))
    one = training.reward.name if training is not None and config.trains else None
    found = memory(model.config, rewards, batches, use, gpu, one)
    staged = training is None or training.train.least_graphs == "staged"
    return found if found is None or staged else found._replace(exact=False)  # joint graphs take more


def relaxed(config: CellConfig, gib: float) -> str | None:
    """How a cell saves memory that a GPU of so many GiB has anyway, in words; None where there is nothing,
    or where what it would take is not known."""
    training, model = config.training, config.model.config
    if training is None or not config.trains:
        return None
    checkpointing, whole = {"gradient_checkpointing": False}, {"micro_batch": training.train.batch}
    ways: list[tuple[Tree, Tree]] = [(checkpointing, whole), (checkpointing, {}), ({}, whole)]
    for of_model, of_train in ways:
        other_model, train = model.model_copy(update=of_model), training.train.model_copy(update=of_train)
        if (other_model, train.at_once) == (model, training.train.at_once):
            continue
        other = config.model_copy(
            update={
                "model": config.model.model_copy(update={"config": other_model}),
                "training": training.model_copy(update={"train": train}),
            }
        )
        taken = memory_of(other, gpu=True)
        if taken is not None and taken.exact and taken.gib <= SPARE * gib:
            sets = [
                f"--set model.{k}={str(v).lower()}" for k, v in of_model.items() if getattr(model, k) != v
            ]
            sets += [f"--set train.{k}={v}" for k, v in of_train.items() if training.train.at_once != v]
            return (
                f"this GPU has {gib:.0f} GiB, and {' '.join(sets)} would take about {taken}, for less work "
                "in a step (`bench plan` has the numbers); that makes another cell"
            )
    return None


def memory_advice(config: CellConfig, gpu: bool) -> str:
    """What to do about a cell that ran out of memory, with the estimate of what it takes."""
    taken = memory_of(config, gpu)
    known = "Nothing is known of this model's size" if taken is None else f"The estimate for it is {taken}"
    where = "of the GPU" if gpu else "of main memory"
    less = "--set train.micro_batch=1 and --set model.gradient_checkpointing=true take less"
    return f"{known} {where}. {less}."
