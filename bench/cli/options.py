"""The options that several commands share, each declared once. A command says only what its default is."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.base import devices


def _hand_on(device: str | None) -> str | None:
    """To this process and all that it starts. A command has nothing to do with its option `device`."""
    if device is not None:
        os.environ[devices.VARIABLE] = devices.wish(device, "--device")
    return device


Methods = Annotated[
    str | None, Option(metavar="NAMES", help="names with commas between them, or `all`", show_default="all")
]
Models = Annotated[
    str | None,
    Option("--model", metavar="NAMES", help="names, path:DIRECTORY or hub:ORG/NAME", show_default="tiny"),
]
Model = Annotated[
    str | None, Option(metavar="NAME", help="a name, path:DIRECTORY or hub:ORG/NAME", show_default="tiny")
]
Rewards = Annotated[
    str | None,
    Option(
        "--reward",
        metavar="NAMES",
        help="what to train on: names, a sum hpsv2:1,aes:0.5, or python:module.function",
        show_default="the model's",
    ),
]
Prompts = Annotated[
    str | None, Option(metavar="NAMES", help="prompt sets or files", show_default="the model's")
]
Seeds = Annotated[
    str | None, Option(metavar="NUMBERS", help="numbers and ranges: 0,3 or 0-4 or 0-2,7", show_default="0")
]
Steps = Annotated[int | None, Option(min=1, metavar="N", help="optimizer steps of every method")]
Budget = Annotated[
    str | None,
    Option(metavar="AMOUNT", help="instead of --steps: forward equivalents (20000) or training time (10m)"),
]
Config = Annotated[str | None, Option(metavar="NAME", help="an experiment: a YAML file or a shipped name")]
Settings = Annotated[
    list[str] | None,
    Option("--set", metavar="SETTING", help="SECTION.KEY=VALUE, such as rlr.h=3; may be repeated"),
]
FileSettings = Annotated[
    list[str] | None,
    Option("--set", metavar="SETTING", help="model.KEY=VALUE, REWARD.KEY=VALUE; may be repeated"),
]
Weights = Annotated[
    str | None,
    Option(metavar="SOURCE", help="random (true shapes, random numbers), path:DIRECTORY or hub:ORG/NAME"),
]
Dcot = Annotated[bool | None, Option("--dcot/--no-dcot", help="other prompts for coarse, mid and fine steps")]
Threads = Annotated[
    int | None, Option(min=1, metavar="N", help="CPU threads of each process", show_default="the model's")
]
Device = Annotated[
    str | None,
    Option(
        metavar="DEVICE",
        help="cpu, cuda, or auto: the GPU where there is one",
        show_default="auto",
        callback=_hand_on,
    ),
]
NamedOut = Annotated[
    Path | None, Option("--out", metavar="DIR", help="results directory", show_default="results/NAME")
]
Out = Annotated[Path, Option(metavar="DIR", help="results directory")]
Again = Annotated[bool, Option("--force", help="start the cells again, also finished ones")]
Results = Annotated[Path, Argument(metavar="DIR", help="a results directory")]

Changes = Annotated[
    list[str] | None,
    Option("--with", metavar="KEY=VALUE", help="over the profile, such as mem=80GB; may be repeated"),
]
MaxParallel = Annotated[
    int | None, Option(min=1, metavar="N", help="cells that run at once", show_default="the profile's")
]
Wait = Annotated[bool, Option("--wait", help="until all have ended; exit code 1 if a cell failed")]

Timeout = Annotated[float | None, Option()]  # of the commands that only this program calls
WithParent = Annotated[bool, Option("--with-parent")]
