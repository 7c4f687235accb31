"""The options of all commands: each has one meaning everywhere, which is said here.

What two commands share is one declaration. Where only the type, the default or the word for the value
differs, the text is shared. A command says what its default is. docs/cli.md lists them all, by
`python -m scripts.options_table`.
"""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.base import devices
from bench.cli import completing
from bench.run.tracking import asked

# What an option means that commands declare themselves.
BATCH = "samples of an optimizer step"
DRY_RUN = "check everything and say what would be done; do nothing"
FAILED = "cells that failed"
FILES = "directory for the files"
FORCE = "do again what is done, from the beginning"
JOBS = "pieces of work at a time, each in a process of its own"
LORA = "a cell's directory, or one with a LoRA in it"
METHODS = "names with commas between them"
MODEL = "a name that `list` shows, path:DIRECTORY or hub:ORG/NAME"
OUT = "where results go"
PROFILE = "a YAML file, or the name of one in slurm/profiles"
PROMPTS = "prompt sets that `list` shows, or files"
PROMPTS_FILE = "of pictures: .jsonl, or a line for each; of videos: JSON, file name to prompt"
REWARD = "names that `list` shows, a sum hpsv2:1,aes:0.5, or python:module.function"
SEED = "of the random numbers"
SET = "SECTION.KEY=VALUE, such as rlr.h=3 or model.steps=20; may be repeated"
SLURM = "send the work to SLURM by this profile, as `submit` does"
WAIT = "until all have ended; exit code 1 if one failed"
AT_ONCE = "pictures or videos at a time"


def _hand_on(device: str | None) -> str | None:
    """To this process and all that it starts. A command has nothing to do with its option `device`."""
    if device is not None:
        os.environ[devices.VARIABLE] = devices.wish(device, "--device")
    return device


def _track(names: str | None) -> str | None:
    """To all processes that this one starts, as the device."""
    if names is not None:
        os.environ[asked.VARIABLE] = ",".join(asked.checked(names, "--track"))
    return names


Methods = Annotated[
    str | None,
    Option(metavar="NAMES", help=METHODS, show_default="all", autocompletion=completing.methods),
]
MethodsToCompare = Annotated[
    str, Option("--methods", metavar="NAMES", help=METHODS, autocompletion=completing.methods)
]
Models = Annotated[
    str | None,
    Option("--model", metavar="NAMES", help=MODEL, show_default="tiny", autocompletion=completing.models),
]
Model = Annotated[
    str | None,
    Option(metavar="NAME", help=MODEL, show_default="tiny", autocompletion=completing.model),
]
Rewards = Annotated[
    str | None,
    Option(
        "--reward",
        metavar="NAMES",
        help=REWARD,
        show_default="the model's",
        autocompletion=completing.rewards,
    ),
]
Prompts = Annotated[
    str | None,
    Option(metavar="NAMES", help=PROMPTS, show_default="the model's", autocompletion=completing.prompt_sets),
]
Seeds = Annotated[
    str | None, Option(metavar="NUMBERS", help="numbers and ranges: 0,3 or 0-4 or 0-2,7", show_default="0")
]
Seed = Annotated[int, Option(min=0, metavar="N", help=SEED)]
Steps = Annotated[int | None, Option(min=1, metavar="N", help="optimizer steps of every method")]
Budget = Annotated[
    str | None,
    Option(metavar="AMOUNT", help="instead of --steps: forward equivalents (20000) or training time (10m)"),
]
Config = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="an experiment: a YAML file or a shipped name",
        autocompletion=completing.experiment,
    ),
]
Settings = Annotated[list[str] | None, Option("--set", metavar="SETTING", help=SET)]
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
        autocompletion=completing.device,
    ),
]
Track = Annotated[
    str | None,
    Option(
        metavar="NAMES",
        help="send every cell to tensorboard, wandb, mlflow while it runs",
        show_default="none",
        callback=_track,
    ),
]
NamedOut = Annotated[Path | None, Option("--out", metavar="DIR", help=OUT, show_default="results/NAME")]
Out = Annotated[Path, Option(metavar="DIR", help=OUT)]
Again = Annotated[bool, Option("--force", help=FORCE)]
DryRun = Annotated[bool, Option("--dry-run", help=DRY_RUN)]
Failed = Annotated[bool, Option("--failed", help=FAILED)]
AsJson = Annotated[bool, Option("--json", help="print one JSON document instead of text")]
Results = Annotated[Path, Argument(metavar="DIR", help="a results directory")]

Jobs = Annotated[
    int | None, Option(min=1, metavar="N", help=JOBS, show_default="one per GPU, or per CPU core")
]
Profile = Annotated[str, Option(metavar="PROFILE", help=PROFILE, autocompletion=completing.profile)]
Slurm = Annotated[str | None, Option(metavar="PROFILE", help=SLURM, autocompletion=completing.profile)]
Changes = Annotated[
    list[str] | None,
    Option("--with", metavar="KEY=VALUE", help="over the profile, such as mem=80GB; may be repeated"),
]
MaxParallel = Annotated[
    int | None,
    Option(min=1, metavar="N", help="cells that run at once on SLURM", show_default="the profile's"),
]
Wait = Annotated[bool, Option("--wait", help=WAIT)]

Timeout = Annotated[float | None, Option()]  # of the commands that only this program calls
WithParent = Annotated[bool, Option("--with-parent")]
