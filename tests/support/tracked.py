"""Reading back what experiment trackers have stored."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.base.files import read_rows
from bench.run.store import CellDir

BLOCK, CHUNK = 32768, struct.Struct("<IHB")  # of the log format of LevelDB, which W&B's files have
FULL, FIRST, LAST = 1, 2, 4
HEADER = 7  # bytes in front of the first block's chunks


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def tensorboard_images(folder: Path) -> dict[str, list[tuple[int, bytes]]]:
    """(step, bytes of the file) of every image."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {
        tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in events.Tags()["images"]
    }


def wandb_records(file: Path) -> Iterator[Any]:
    """The messages in a run's .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    data, at, parts = file.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while at + CHUNK.size <= len(data):
        if (left := BLOCK - at % BLOCK) < CHUNK.size:
            at += left
            continue
        _, length, kind = CHUNK.unpack_from(data, at)
        chunk = data[at + CHUNK.size : at + CHUNK.size + length]
        at += CHUNK.size + length
        parts = chunk if kind in (FULL, FIRST) else parts + chunk
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """The lines of a run's history, in the order in which they were logged."""
    found = list[dict[str, Any]]()
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return found


def mlflow(store: str, run: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every metric of a run."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    return {
        key: [(metric.step, metric.value) for metric in client.get_metric_history(run, key)]
        for key in client.get_run(run).data.metrics
    }


def rewards(cell: CellDir) -> list[tuple[int, float]]:
    """(step, mean reward) as the cell's own log has them."""
    return [(row["step"], row["reward_mean"]) for row in read_rows(cell.metrics)]


def one(folder: Path, pattern: str) -> Path:
    """The only file that a pattern finds."""
    (found,) = folder.glob(pattern)
    return found


def offline() -> dict[str, str]:
    """The environment in which W&B writes files alone."""
    return {**os.environ, "WANDB_MODE": "offline"}
