"""Telling variants of one thing apart: what differs between nested settings, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys with text values."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def listed(tree: Mapping[str, Any]) -> str:
    """`h = 2, weights.fo = 1.0`."""
    return ", ".join(f"{key} = {value}" for key, value in flat(tree).items())


def told_apart(name: str, variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label per variant: the name and, where there are several, the settings that differ: `rlr (h=2)`."""
    settings = [flat(tree) for tree in variants]
    differing = [
        key for key in sorted(set().union(*settings)) if len({values.get(key) for values in settings}) > 1
    ]
    what = [
        ", ".join(f"{key.rsplit('.', 1)[-1]}={values[key]}" for key in differing if key in values)
        for values in settings
    ]
    return [f"{name} ({text})" if text else name for text in what]
