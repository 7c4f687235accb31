"""Rewards that are not registered one by one: sums (`hpsv2:1,aes:0.5`) and functions (`python:module.fn`)."""

from __future__ import annotations

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


def function(name: str) -> str | None:
    """`module.fn` of `python:module.fn`; None if the name is something else."""
    kind, colon, path = name.partition(":")
    return path if colon and kind == FUNCTION and not terms(name) else None


def registered(name: str) -> str:
    """The name under which the class of a reward is registered."""
    if terms(name):
        return SUM
    return FUNCTION if function(name) is not None else name
