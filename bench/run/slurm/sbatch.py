"""What a profile's values and options look like to SLURM: times, memory, sbatch's options by their names."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

UNITS = {"m": 1, "h": 60, "d": 24 * 60}
MEMORY_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
RESERVED = {
    "array", "output", "error", "signal", "requeue", "no-requeue", "job-name", "ntasks", "ntasks-per-node",
    "open-mode", "kill-on-invalid-dep", "wrap", "parsable",
}  # fmt: skip
# sbatch's options that a profile has a key of its own for: said twice, one would silently win.
OWN_KEYS = {
    "time": "time", "time-min": "time", "mem": "mem", "mem-per-cpu": "mem", "mem-per-gpu": "mem",
    "partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint",
    "nodes": "nodes", "gpus": "gpus", "gpus-per-node": "gpus", "gpus-per-task": "gpus", "gres": "gres",
    "cpus-per-task": "cpus", "dependency": "dependency",
}  # fmt: skip
SHORT = {
    "A": "account", "C": "constraint", "D": "chdir", "J": "job-name", "M": "clusters", "N": "nodes",
    "a": "array", "b": "begin", "c": "cpus-per-task", "d": "dependency", "e": "error", "n": "ntasks",
    "o": "output", "p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip


def minutes(text: Any) -> Any:
    """`90m`, `4h`, `1d` or a time as SLURM takes it, as minutes; seconds are rounded up.

    SLURM's: `M`, `M:SS`, `H:MM:SS`, `D-H`, `D-H:MM`, `D-H:MM:SS`.
    """
    if isinstance(text, bool) or not isinstance(text, str):
        return text
    if found := re.fullmatch(r"(\d+)([mhd]?)", text.strip()):
        return int(found[1]) * UNITS[found[2] or "m"]
    if found := re.fullmatch(r"(\d+)-(\d+)(?::(\d\d))?(?::(\d\d))?", text.strip()):
        days, hours, mins, seconds = (int(part or 0) for part in found.groups())
        return (days * 24 + hours) * 60 + mins + (seconds > 0)
    if found := re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d)", text.strip()):
        hours, mins, seconds = (int(part or 0) for part in found.groups())
        return hours * 60 + mins + (seconds > 0)
    raise ValueError("expected a time such as 90m, 4h, 1d, 04:00:00 or 2-0")


def megabytes(text: Any) -> Any:
    """`512MB`, `40GB`, `1.5T` as MiB, SLURM's unit, rounded up; 0 is all of a node's."""
    if not isinstance(text, str):
        return text
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE):
        return math.ceil(float(found[1]) * MEMORY_UNITS[found[2].upper() or "M"])
    raise ValueError("expected memory such as 512MB or 40GB")


def _long_names(options: Any) -> Any:
    """sbatch's options by their long names without dashes; `--exclude`, `x`, `mem_per_cpu` are understood."""
    if not isinstance(options, dict):
        return options
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key).lstrip("-").replace("_", "-")
        name = SHORT.get(name, name)
        if not re.fullmatch("[a-z][a-z0-9-]+", name):
            raise ValueError(f"'{key}' is no option of sbatch")
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found


def _reserved(options: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(RESERVED & options.keys()):
        raise ValueError(f"the program sets {', '.join(taken)} itself")
    return options


Minutes = Annotated[int, BeforeValidator(minutes, json_schema_input_type=int | str), Field(ge=1)]
Megabytes = Annotated[int, BeforeValidator(megabytes, json_schema_input_type=int | str), Field(ge=0)]
Options = Annotated[dict[str, str | int | bool], BeforeValidator(_long_names), AfterValidator(_reserved)]
