"""Features of held-out pictures: how they are stored, and how far two pictures lie apart in them.

`evaluate` makes them, a cell keeps them in features/<step>.npz, the report compares those of different cells.
No torch here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from bench.base.errors import Damaged
from bench.base.files import write_atomically

PIXELS = "pixels"  # the name of features that no reward made


class Features(NamedTuple):
    """What the pictures of one evaluation look like.

    name: of the reward that embedded them, or `pixels`. values: [pictures, D], float32, in the order in which
    the evaluation's rows first name them: all pictures of the first prompt, then those of the next.
    """

    name: str
    values: np.ndarray


def distance(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """Distances [...] between features a and b [..., D], which broadcast. name: of the features.

    1 - cosine, of pixels the Euclidean distance, which is their root-mean-square difference. Equal features
    give exactly zero.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if name == PIXELS:
        return np.linalg.norm(a - b, axis=-1)
    return ((_unit(a) - _unit(b)) ** 2).sum(axis=-1) / 2  # 1 - cosine without its cancellation


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def file_of(folder: Path, step: int) -> Path:
    """Where the features of the evaluation at a step are kept."""
    return folder / f"{step:06d}.npz"


def files_by_step(folder: Path) -> dict[int, Path]:
    """The files that are there, by the step of their evaluation, in order."""
    found = {int(file.stem): file for file in folder.glob("*.npz") if file.stem.isdigit()}
    return dict(sorted(found.items()))


def write(folder: Path, step: int, features: Features) -> None:
    """Keep the features of the evaluation at a step."""
    stream = io.BytesIO()
    np.savez(stream, name=np.array(features.name), values=features.values)
    write_atomically(file_of(folder, step), stream.getvalue())


def read(file: Path) -> Features:
    """The features in a file. Raises Damaged for anything else, or if it is not there."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            name, values = str(stored["name"]), stored["values"]
    except (OSError, EOFError, ValueError, TypeError, KeyError, NotImplementedError, BadZipFile) as error:
        raise Damaged(file, f"no whole file of features ({error})") from error
    if values.ndim != 2:
        raise Damaged(file, f"features of shape {list(values.shape)}, not [pictures, D]")
    return Features(name, values)


def cut(folder: Path, step: int) -> None:
    """Drop the files of evaluations that lie after a step."""
    for at, file in files_by_step(folder).items():
        if at > step:
            file.unlink()


def lost(folder: Path, last: int) -> Path | None:
    """The file of a finished cell's last evaluation where it is gone; None where it is there.

    Cells of before features were kept have no such folder, and have lost nothing.
    """
    file = file_of(folder, last)
    return file if folder.is_dir() and not file.exists() else None
