"""What a caller says in Python → what the command line would say, and where what is said back goes."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

from rich.console import Console

from bench.base import devices
from bench.base.errors import BenchError as BenchError
from bench.run.process import COMMAND_VARIABLE
from bench.run.tracking import asked

Names = str | Sequence[str]
Seeds = int | str | Sequence[int]
Settings = Mapping[str, Any] | Sequence[str]


def names(value: Names | Seeds | None) -> str | None:
    """`["rlr", "zo"]`, `"rlr,zo"` or `0` as the text with commas that the command line takes."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


def settings(value: Settings | None) -> list[str]:
    """`{"rlr": {"h": 3}}`, `{"rlr.h": 3}` or `["rlr.h=3"]` as the texts that `--set` takes.

    Raises BenchError for a single text, whose letters would be taken for settings.
    """
    if isinstance(value, str):
        raise BenchError(f'settings={value!r}: expected a dict {{"rlr.h": 3}} or a list ["rlr.h=3"]')
    if not isinstance(value, Mapping):
        return list(value or ())
    return [f"{key}={_yaml(one)}" for key, one in _flat(value)]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _yaml(value: Any) -> str:
    """JSON is YAML. numpy's numbers are numbers; paths and the like are their texts."""
    return json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other))


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """The call as one can write it again, without arguments that are the default.

    arguments: by name, as `locals()` at the function's beginning.
    """
    defaults = {key: one.default for key, one in inspect.signature(function).parameters.items()}
    said = {key: value for key, value in arguments.items() if value != defaults[key]}
    plain = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in said.items()}
    return f"bench.{function.__name__}({', '.join(f'{key}={value!r}' for key, value in plain.items())})"


@contextmanager
def asked_by(call: str, device: str | None, track: str | None = None) -> Iterator[None]:
    """Within the context, what starts is on record as started by that call, computes on that device and is
    sent to these trackers.

    device, track: as `--device`, `--track`; None: as without. Raises BenchError for an unknown one. In a
    notebook the standard error stream says in black what it would say in red.
    """
    said = {COMMAND_VARIABLE: call}
    said |= {} if device is None else {devices.VARIABLE: devices.wish(device, "device")}
    said |= {} if track is None else {asked.VARIABLE: ",".join(asked.checked(track, "track"))}
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        with redirect_stderr(sys.stdout if in_notebook() else sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, of bars that nobody needs here
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def console() -> Console:
    """On a terminal and in a file the command line's; in a notebook plain text.

    A notebook is no terminal, but its kernel says that it takes a terminal's control characters; and
    everything that rich shows there would be a picture of its own.
    """
    return Console(force_jupyter=False, force_terminal=False) if in_notebook() else Console()


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    return Console().is_jupyter
