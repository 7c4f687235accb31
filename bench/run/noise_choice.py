"""What a method that trains nothing does to held-out pictures, kept by picture.

Choosing the noise of one picture can take as long as many optimizer steps. So every batch's is written to
latents/ as soon as it is known, with what it took, and a cell that was killed goes on with the next batch. A
batch is done again as a whole unless all of it is there: the numbers are those of a run that was not killed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.files import Record, write_atomically
from bench.engine.batch import Improved, Start
from bench.engine.engine import Engine
from bench.engine.method import InferenceMethod
from bench.run.environment import peak_memory, reset_peak_memory
from bench.run.store import CellDir

NOISE, TOOK = "noise", "took"  # the tensor of a file of latents/, and the key of its metadata


class NoiseChooser:
    """Chooses the noise of a cell's held-out pictures by its method, or reads what was chosen before."""

    def __init__(
        self,
        method: InferenceMethod,
        engine: Engine,
        cell: CellDir,
        writes: bool,
    ) -> None:
        """writes: whether this process does."""
        self.method, self.engine, self.cell, self.writes = method, engine, cell, writes
        self.rows: list[Record] = []

    def __call__(self, start: Start) -> Tensor:
        """Noise [B, *latent_shape]. Raises BenchError for noise that is not finite."""
        files = [_file(self.cell, picture) for picture in start.pictures]
        if all(file.is_file() for file in files):
            found = [_read(file, start.noise) for file in files]
        else:
            found = self._improved(start)
            for file, (noise, took) in zip(files if self.writes else (), found, strict=self.writes):
                data = {NOISE: noise.cpu().contiguous()}
                write_atomically(file, save(data, {TOOK: json.dumps(took)}))
        for prompt, (_, image), (_, took) in zip(start.prompts, start.pictures, found, strict=True):
            self.rows.append({"step": 0, "prompt": prompt, "image": image, **took})
        return torch.stack([noise for noise, _ in found])

    def record(self) -> None:
        """Write inference.jsonl, one line per picture."""
        if self.writes:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
            write_atomically(self.cell.inference, "".join(lines))

    def _improved(self, start: Start) -> list[tuple[Tensor, Record]]:
        """Every picture's noise and its share of what the batch took."""
        started, count = time.perf_counter(), len(start.prompts)
        reset_peak_memory(start.noise.device)
        found = self.method.improve(self.engine, start)
        _check(found, start)
        rewards = found.rewards.tolist()
        shared = {
            "forward": found.forward / count,
            "backward": found.backward / count,
            "seconds": (time.perf_counter() - started) / count,
            "memory": peak_memory(found.noise.device),
        }
        return [(x, {**shared, "rewards": r}) for x, r in zip(found.noise, rewards, strict=True)]


def kept(cell: CellDir, start: Start) -> Tensor:
    """The noise [B, *latent_shape] that a finished cell chose for these pictures. Raises BenchError."""
    files = [_file(cell, picture) for picture in start.pictures]
    for file in files:
        if not file.is_file():
            raise BenchError(f"{file}: not there: the cell is not finished, so run it first")
    return torch.stack([_read(file, start.noise)[0] for file in files])


def _file(cell: CellDir, picture: tuple[int, int]) -> Path:
    prompt, image = picture
    return cell.latents / f"{prompt:06d}-{image:02d}.safetensors"


def _read(file: Path, like: Tensor) -> tuple[Tensor, Record]:
    try:
        with safe_open(file, framework="pt", device=str(like.device)) as stored:
            noise, metadata = stored.get_tensor(NOISE), stored.metadata()
            took: dict[str, Any] = json.loads(metadata[TOOK])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{file}: damaged: {error}. Remove it, and give the same command again") from error
    if noise.shape != like.shape[1:]:
        raise BenchError(f"{file}: is {list(noise.shape)}, not the model's {list(like.shape[1:])}: remove it")
    return noise.to(like.dtype), took


def _check(found: Improved, start: Start) -> None:
    if found.noise.shape != start.noise.shape or len(found.rewards) != len(start.prompts):
        raise ValueError(f"{list(found.noise.shape)} for noise {list(start.noise.shape)}")
    bad = (~torch.isfinite(found.noise)).flatten(1).any(1).nonzero()[:, 0].tolist()
    if bad:
        raise BenchError(f"the noise for {start.prompts[bad[0]]!r} is not finite: its step may be too large")
