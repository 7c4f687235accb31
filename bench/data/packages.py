"""Packages that some settings need and a plain installation does not have. No torch in here."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from bench.base.errors import BenchError

# torchvision is installed here, apart from the environment's own packages: its wheel on PyPI is built for
# CUDA, and transformers fails to import where it sees a torchvision that does not fit torch.
APART = Path(sys.prefix) / "scorers"
COMMANDS = (
    "pip install -e '.[scorers]' -c constraints.txt",
    "pip install --no-deps -r scorers-nodeps.txt",
    f"pip install --no-deps --target {shlex.quote(str(APART))} torchvision==0.28.0",
)
INSTALL = "make scorers\n  or, in an environment of your own:\n    " + "\n    ".join(COMMANDS)


@runtime_checkable
class NeedsPackages(Protocol):
    """Settings of something that imports packages of an extra. packages: their import names."""

    packages: ClassVar[tuple[str, ...]]


@runtime_checkable
class SaysInstall(Protocol):
    """Settings whose packages are not of the extra `scorers`. install: the command that installs them."""

    install: ClassVar[str]


def command(config: object) -> str:
    """What installs the packages that these settings, or settings of this class, need."""
    return config.install if isinstance(config, SaysInstall) else INSTALL


def wanted(config: object) -> tuple[str, ...]:
    """The packages that these settings, or settings of this class, need; nothing is imported."""
    return config.packages if isinstance(config, NeedsPackages) else ()


def installed(package: str) -> bool:
    """Whether a package can be found; nothing is imported."""
    return importlib.util.find_spec(package) is not None


def absent(config: object) -> tuple[str, ...]:
    """The packages that these settings need and that are not installed."""
    return tuple(name for name in wanted(config) if not installed(name))


def check(config: object, name: str) -> None:
    """Raise BenchError, with the command that installs them, if packages are absent. name: who needs them."""
    if missing := absent(config):
        raise BenchError(
            f"{name} needs {', '.join(missing)}, which is not installed. Install:\n  {command(config)}"
        )
