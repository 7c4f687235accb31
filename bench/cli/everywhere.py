"""The options that every command has: they are added where a command is registered."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from typer import Option

from bench.base.console import speak
from bench.base.errors import BenchError

Quiet = Annotated[bool, Option("--quiet", "-q", help="errors, cautions and the result alone")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="also cells' settings and libraries' warnings")]
ADDED = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
]


def with_common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with `--quiet` and `--verbose` after its own options."""

    @wraps(command)
    def called(*, quiet: bool = False, verbose: bool = False, **own: Any) -> Any:
        if quiet and verbose:
            raise BenchError("say one of --quiet and --verbose")
        speak("quiet" if quiet else "verbose" if verbose else None)
        return command(**own)

    own = inspect.signature(command, eval_str=True)
    called.__signature__ = own.replace(parameters=[*own.parameters.values(), *ADDED])  # type: ignore[attr-defined]
    return called
