"""Text on the terminal."""

import os
import sys

from rich.console import Console


def plain(console: Console, text: str, style: str | None = None, *, wrap: bool = False) -> None:
    """Print text as it is: brackets are not markup, and nothing in it is coloured or replaced.

    wrap: fold long lines between words; otherwise they stay whole, so that paths and commands can be copied.
    """
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)


def progress(text: str) -> None:
    """Say on the standard error stream what is being done now: what takes long is never silent."""
    print(f"… {text}", file=sys.stderr, flush=True)


def caution(text: str) -> None:
    """Say on the standard error stream what a user may have overlooked, and that is no error."""
    plain(Console(stderr=True), f"caution: {text}", "yellow")


def without_bars() -> None:
    """Show no progress bars of other libraries: what they would count takes half a second."""
    os.environ.setdefault("TQDM_DISABLE", "1")
