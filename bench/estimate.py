"""How long a cell will take, from what earlier runs on this machine measured. Nothing measured: unknown."""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import BenchError
from bench.settings import CellConfig, Training
from bench.store import CellDir, read_rows


def seconds_per_step(config: CellConfig, experiments: Path) -> float | None:
    """From the newest cell below a directory of experiments with the same method, model and batch."""
    if config.training is None:
        return None
    wanted = _key(config, config.training)
    logs = sorted(experiments.glob("*/cells/*/metrics.jsonl"), key=lambda p: p.stat().st_mtime, reverse=True)
    for log in logs:
        cell = CellDir(log.parent)
        try:
            other = cell.config()
        except BenchError:
            continue  # written by another schema version: no help here, and its own command will say so
        rows = read_rows(log)
        if rows and other.training is not None and _key(other, other.training) == wanted:
            last = rows[-1]
            return last["seconds"] / last["step"]
    return None


def _key(config: CellConfig, training: Training) -> str:
    """Two cells with the same key cost the same per optimizer step."""
    model = config.model.config.model_dump(mode="json", exclude={"source", "path", "revision"})
    train = training.train.model_dump(
        mode="json", include={"prompts_per_step", "samples_per_prompt", "micro_batch"}
    )
    parts = [training.method.model_dump(mode="json"), config.model.name, model, train, config.threads]
    return json.dumps(parts, sort_keys=True)
