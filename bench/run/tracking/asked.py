"""Which trackers were asked for, and whether they are installed. Imports none of them, and no torch.

`--track` reaches every process that a command starts as BENCH_TRACK, as `--device` does as BENCH_DEVICE.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.base import units
from bench.base.errors import BenchError, did_you_mean
from bench.data.packages import installed

VARIABLE = "BENCH_TRACK"
PACKAGES = {"tensorboard": ("tensorboard",), "wandb": ("wandb",), "mlflow": ("mlflow",)}
DATABASE = ("sqlalchemy", "alembic")  # what MLflow needs besides where its store is a database
MLFLOW_URI = "MLFLOW_TRACKING_URI"
INSTALL = "pip install -e '.[track]' -c constraints.txt"


def place(results: Path) -> Path:
    """Where trackers put their files, unless their own environment variables say otherwise."""
    return results.absolute() / "tracking"


def mlflow_store(results: Path) -> str:
    """The address of MLflow's store: MLFLOW_TRACKING_URI, or a database in the results directory."""
    return os.environ.get(MLFLOW_URI) or f"sqlite:///{place(results) / 'mlflow.db'}"


def checked(text: str, where: str) -> tuple[str, ...]:
    """The trackers that a text names. where: for the message.

    Raises BenchError for an unknown one, and for one that is not installed.
    """
    names = tuple(dict.fromkeys(units.names(text)))
    for name in names:
        if name not in PACKAGES:
            known = list(PACKAGES)
            raise BenchError(
                f"{where}: '{name}' is no tracker.{did_you_mean(name, known)} Known: {', '.join(known)}"
            )
    if missing := [package for package in _needed(names) if not installed(package)]:
        raise BenchError(f"{where} {text}: not installed: {', '.join(missing)}. Install:\n  {INSTALL}")
    return names


def asked() -> tuple[str, ...]:
    """What `--track` said, here or in the process that started this one. Raises BenchError as `checked`."""
    return checked(os.environ.get(VARIABLE, ""), VARIABLE)


def later(results: Path, names: Sequence[str]) -> str:
    """What to type to send what trackers lack of a results directory."""
    return f"python -m bench track {shlex.quote(str(results))} {','.join(names)}"


def _needed(names: Sequence[str]) -> list[str]:
    found = [package for name in names for package in PACKAGES[name]]
    database = os.environ.get(MLFLOW_URI, "sqlite:").partition(":")[0] not in ("http", "https", "databricks")
    return [*found, *DATABASE] if "mlflow" in names and database else found
