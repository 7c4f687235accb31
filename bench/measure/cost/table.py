"""Usages → profile.csv, timeline.csv and the table on the terminal. All _gb are units of 1e9 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.base.files import write_atomically
from bench.base.units import GB
from bench.experiment.resolve import Cell
from bench.experiment.settings import Training
from bench.measure.cost.ledger import COMPONENTS, PARTS, SIZE
from bench.measure.cost.plan import Mode
from bench.measure.cost.times import KINDS
from bench.measure.cost.usage import Usage

KEYS = ("cell", "mode")
SIZES = (  # components of the peak, and sums of them
    *("weights", "lora", "gradients", "optimizer", "activations"),
    *(f"activations {part}" for part in PARTS if part != "text"),
    *("latents", "perturbations", "temporaries"),
)
NOTE = (
    "GB: 1e9 bytes of live tensors at the peak; what a GPU's libraries and allocator take comes on top. "
    "other: LoRA, gradients, optimizer, latents, perturbations, temporaries. RAM: activations offloaded "
    "to main memory (model.offload). fwd, bwd: network evaluations of a batch. TFLOP: 1e12 operations of a "
    "batch."
)


@dataclass(frozen=True)
class Profiled:
    """A cell and what its step takes."""

    cell: Cell
    training: Training
    mode: Mode
    usage: Usage

    @property
    def seconds_from(self) -> str | None:
        """Whether its seconds were measured or predicted."""
        if self.usage.seconds is None:
            return None
        return "measured" if self.mode == "measured" else "predicted"


def record(one: Profiled) -> dict[str, Any]:
    """A line of profile.csv."""
    model, train, usage = one.cell.config.model.config, one.training.train, one.usage
    return {
        "cell": one.cell.id,
        "model": one.cell.config.model.name,
        "method": one.training.method.name,
        "reward_name": one.training.reward.name,
        "mode": one.mode,
        "graphs": train.least_graphs,
        "T": model.steps,
        "h": block(one.training),
        "batch": train.batch,
        "micro_batch": train.at_once,
        "reward_chunk": train.reward_chunk or train.at_once,
        "guidance": model.guidance,
        "dtype": usage.dtype,
        "checkpointing": model.gradient_checkpointing,
        "offload": model.offload,
        "resolution": usage.resolution,
        "frames": model.frames or 1,
        "decode_chunk": model.decode_chunk,
        "peak_gb": usage.device / GB,
        "peak_stage": usage.peak_stage,
        **{f"{name.replace(' ', '_')}_gb": usage.of(name) / GB for name in SIZES},
        "system_ram_gb": usage.host / GB,
        "process_gb": _gigabytes(usage.process),
        "cuda_allocated_gb": _gigabytes(usage.allocated),
        "cuda_reserved_gb": _gigabytes(usage.reserved),
        "updates": usage.work.updates,
        "forward_evals": usage.work.forward,
        "backward_evals": usage.work.backward,
        "flops": usage.flops,
        "seconds": None if usage.seconds is None else usage.seconds.total,
        "seconds_from": one.seconds_from,
        **{f"{kind}_seconds": None if usage.seconds is None else usage.seconds.parts[kind] for kind in KINDS},
        "overhead": None if usage.seconds is None else usage.seconds.overhead,
    }


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else size / GB


def block(training: Training) -> int | None:
    """h, of methods that have one."""
    settings = training.method.config
    return int(settings["h"]) if "h" in settings else None


def timeline(one: Profiled) -> list[dict[str, Any]]:
    """Lines of timeline.csv: what was alive at one time, by component, and what was offloaded."""
    return [
        {
            "cell": one.cell.id,
            "method": one.training.method.name,
            "mode": one.mode,
            "event": point.order,
            "stage": point.stage,
            **{f"{name.replace(' ', '_')}_gb": point.bytes[n] / GB for n, name in enumerate(COMPONENTS)},
            "system_ram_gb": point.bytes[SIZE:].sum() / GB,
        }
        for point in one.usage.timeline
    ]


def write(out: Path, found: Sequence[Profiled]) -> list[Path]:
    """Add to both files; a cell that was profiled before is replaced."""
    lines = {
        "profile.csv": [record(one) for one in found],
        "timeline.csv": [line for one in found for line in timeline(one)],
    }
    for name, records in lines.items():
        write_atomically(
            out / name, _merged(out / name, pd.DataFrame.from_records(records)).to_csv(index=False)
        )
    return [out / name for name in lines]


def _merged(path: Path, new: pd.DataFrame) -> pd.DataFrame:
    if not path.exists():
        return new
    old = pd.read_csv(path)
    if list(old.columns) != list(new.columns):
        return new  # another version's file
    fresh = set(new[list(KEYS)].itertuples(index=False, name=None))
    kept = [key not in fresh for key in old[list(KEYS)].itertuples(index=False, name=None)]
    return pd.concat([old.loc[kept], new]) if any(kept) else new


def print_table(console: Console, found: Sequence[Profiled]) -> None:
    """The table, at most 80 columns wide."""
    lines = [record(one) for one in found]
    varied = [name for name in ("graphs", "T", "h", "batch") if len({line[name] for line in lines}) > 1]
    first = lines[0]
    extras = "".join(f", {name}" for name in ("checkpointing", "offload") if first[name])
    fixed = "" if "batch" in varied else f"batch {first['batch']}, "
    fixed += "" if "graphs" in varied else f"{first['graphs']} graphs, "
    fixed += "" if "T" in varied else f"T {first['T']}, "
    frames = "" if first["frames"] == 1 else f"{first['frames']} frames of {first['resolution']}, "
    title = (
        f"{first['model']}, {frames}{first['mode']}, {first['dtype']}, "
        f"{fixed}reward {first['reward_name']}{extras}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", padding=(0, 1), box=None)
    offloaded = any(one.usage.host for one in found)
    sizes = ("peak GB", "weights", "activations", "other", *["RAM"] * offloaded)
    for header in ("method", *varied, *sizes, "fwd", "bwd", "TFLOP", "s"):
        justify = "left" if header in ("method", "graphs") else "right"
        table.add_column(header, justify=justify, no_wrap=header != "method", overflow="fold")
    for one, line in zip(found, lines, strict=True):
        usage = one.usage
        weights, activations = usage.of("weights"), usage.of("activations")
        parts = (usage.device, weights, activations, usage.device - weights - activations)
        table.add_row(
            one.training.method.name,
            *("-" if (value := line[name]) is None else str(value) for name in varied),
            *(number(size / GB) for size in parts),
            *[number(usage.host / GB) if usage.host else "-"] * offloaded,
            str(usage.work.forward),
            str(usage.work.backward),
            number(usage.flops / 1e12),
            "-" if usage.seconds is None else number(usage.seconds.total),
        )
    console.print(table)
    console.print(NOTE, style="dim", highlight=False)


def number(value: float) -> str:
    """A number in three digits, or whole if it has more: `0.0523`, `445`."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
