"""`bench completion`: the script that makes a shell complete this program's options and names."""

import os
from enum import StrEnum
from typing import Annotated

from typer import Argument
from typer.completion import completion_init, get_completion_script

PROGRAM, VARIABLE = "bench", "_BENCH_COMPLETE"  # the variable is named by typer


class Shell(StrEnum):
    """Shells that typer can complete for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, Argument(help="which shell")]) -> None:
    """Print what makes a shell complete options and names: eval "$(bench completion bash)"."""
    print(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))


def answer_shells() -> None:
    """Let typer answer, where a shell asks: without its own options for completion it knows no shell."""
    if VARIABLE in os.environ:
        completion_init()
