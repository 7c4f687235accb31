"""Text on the terminal, and how much of it: `--quiet` and `--verbose` mean the same for every command.

Quiet: errors, cautions and the result alone. Verbose: also the settings of every cell before it runs, and
what the libraries log and warn of. Processes that a command starts have it from BENCH_VERBOSITY.
"""

import os
import sys
import warnings
from typing import Literal

from rich.console import Console

VARIABLE = "BENCH_VERBOSITY"
LIBRARIES = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY")


def speak(how: Literal["quiet", "verbose"] | None) -> None:
    """From now on, in this process and all that it starts; None: as the process that started this one."""
    if how is not None:
        os.environ[VARIABLE] = how
    if verbose():
        os.environ |= dict.fromkeys(LIBRARIES, "info")
        warnings.simplefilter("default")
    else:
        os.environ.setdefault(LIBRARIES[0], "error")  # it warns of an image processor nobody uses


def quiet() -> bool:
    """Whether nothing but errors, cautions and the result is to be printed."""
    return os.environ.get(VARIABLE) == "quiet"


def verbose() -> bool:
    """Whether everything is to be printed that there is to say."""
    return os.environ.get(VARIABLE) == "verbose"


def plain(console: Console, text: str, style: str | None = None, *, wrap: bool = False) -> None:
    """Print text as it is: brackets are not markup, and nothing in it is coloured or replaced.

    wrap: fold long lines between words; otherwise they stay whole, so that paths and commands can be copied.
    """
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def note(console: Console, text: str, style: str | None = None) -> None:
    """Print what happens on the way to a result; nothing with `--quiet`."""
    if not quiet():
        plain(console, text, style)


def detail(text: str) -> None:
    """Print to the standard error stream, with `--verbose` alone."""
    if verbose():
        plain(Console(stderr=True), text, "dim")


def progress(text: str) -> None:
    """Say on the standard error stream what is being done now: what takes long is never silent, unless it is
    asked to be (`--quiet`)."""
    if not quiet():
        print(f"… {text}", file=sys.stderr, flush=True)


def caution(text: str) -> None:
    """Say on the standard error stream what a user may have overlooked, and that is no error."""
    plain(Console(stderr=True), f"caution: {text}", "yellow")


def without_bars() -> None:
    """Show no progress bars of other libraries: what they would count takes half a second."""
    os.environ.setdefault("TQDM_DISABLE", "1")
