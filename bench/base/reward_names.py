"""Rewards that are not registered one by one: sums (`hpsv2:1,aes:0.5`) and functions (`python:module.fn`)."""

from __future__ import annotations

import math

from bench.base.errors import BenchError

SUM = "weighted"
FUNCTION = "python"


def terms(name: str) -> list[tuple[str, float]]:
    """(reward, weight) of every term of a sum; none if the name is no sum."""
    found: list[tuple[str, float]] = []
    for part in name.split(","):
        reward, _, weight = part.strip().rpartition(":")
        try:
            found.append((reward, float(weight)))
        except ValueError:
            return []
        if not reward:
            return []
    return found


def listed(text: str) -> list[str]:
    """The rewards of `--reward`: names with commas between them, or one sum. Raises BenchError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    weighted = [part for part in parts if ":" in part and (function(part) is None or terms(part))]
    if not weighted:
        if any(function(part) == "" for part in parts):
            raise BenchError(f"--reward {text}: write python:module.function")
        return parts
    if bare := [part for part in parts if part not in weighted]:
        raise BenchError(
            f"--reward {text}: {bare[0]} has no weight. A sum wants one for each ({bare[0]}:1); rewards to "
            "train on one by one have none"
        )
    for part in weighted:
        _check_term(text, part)
    return [",".join(weighted)]


def _check_term(text: str, part: str) -> None:
    reward, _, weight = part.rpartition(":")
    try:
        usable = math.isfinite(float(weight)) and float(weight) != 0
    except ValueError:
        usable = False
    if not usable or (":" in reward and function(reward) is None):
        wrong = weight if not usable else reward.rpartition(":")[2]
        raise BenchError(
            f"--reward {text}: '{wrong}' is no weight for {reward.partition(':')[0]}: a number other than 0, "
            "such as hpsv2:0.5"
        )


def function(name: str) -> str | None:
    """`module.fn` of `python:module.fn`; None if the name is something else."""
    kind, colon, path = name.partition(":")
    return path if colon and kind == FUNCTION and not terms(name) else None


def registered(name: str) -> str:
    """The name under which the class of a reward is registered."""
    if terms(name):
        return SUM
    return FUNCTION if function(name) is not None else name
