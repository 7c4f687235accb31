"""A Python function of your own as reward: `fn(images, prompts)` returns one number for each picture.

`function` is its dotted name, "module.fn"; the module is imported from the working directory or the
environment. images: [B, 3, H, W] in [0, 1] on the run's device; prompts: B texts. With `differentiable: true`
the function gets pictures that carry a graph and returns a tensor that still does; otherwise it may do
anything, also call another program, and methods that need a gradient refuse it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import sys
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from pydantic import Field, field_validator

from bench.base.errors import BenchError, did_you_mean
from bench.base.lazy import torch
from bench.base.strict import Strict
from bench.data.digests import text_digest
from bench.engine.reward import Reward
from rewards.shared.checks import check_pairs
from rewards.shared.own_code import own_files

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class PythonConfig(Strict):
    """Which function, and what it can do."""

    function: str = Field(
        description="dotted name of the function, such as my_module.my_reward; larger numbers are better"
    )
    differentiable: bool = Field(
        default=False, description="whether the tensor that it returns has a gradient to the pictures"
    )

    def digest(self) -> str:
        """Of the code of one's own that the function runs: the source of its module and of what that imports
        from outside the environment. Another code is another reward. Raises BenchError."""
        load_function(self.function)
        module = self.function.rpartition(".")[0]
        files = own_files(module)
        is_source = module in files and files[module].suffix == ".py"
        head = _source(files.pop(module)) if is_source else self.function
        return text_digest((head, *(f"{name} {_hash(file)}" for name, file in sorted(files.items()))))

    @field_validator("function")
    @classmethod
    def _is_dotted(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not of the form module.function")
        return value


@final
class PythonReward(Reward):
    """What the function returns. Rows must not depend on each other; that is the function's to keep."""

    name: ClassVar[str] = "python"
    Config: ClassVar[type[Strict]] = PythonConfig
    differentiable: ClassVar[bool] = True  # its settings say if it is
    scale: ClassVar[str] = "the function's own"

    def __init__(self, config: PythonConfig, device: torch.device) -> None:
        """Imports the function. Raises BenchError."""
        self.function = load_function(config.function)
        self.path, self.device = config.function, device
        self.has_gradient = config.differentiable

    def score(self, media: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """The function's numbers [B], float32 on the device. Raises BenchError if they are not B numbers."""
        check_pairs(media, prompts, f"python:{self.path}")
        with contextlib.nullcontext() if self.has_gradient else torch.no_grad():
            try:
                found = self.function(media if self.has_gradient else media.detach(), list(prompts))
            except (
                Exception,
                SystemExit,
            ) as error:  # the user's code: any failure is theirs to see
                where = f"reward python:{self.path}: the function failed"
                raise BenchError(f"{where}: {type(error).__name__}: {error}") from error
            scores = self._numbers(found, len(media))
        if self.has_gradient and media.requires_grad and torch.is_grad_enabled() and not scores.requires_grad:
            raise BenchError(
                f"reward python:{self.path}: what it returned has no gradient to the pictures. Leave out "
                "differentiable, or return a tensor computed from them without detach() or numpy."
            )
        return scores

    def _numbers(self, found: Any, batch: int) -> torch.Tensor:
        where = f"reward python:{self.path}: expected {batch} numbers"
        if not isinstance(found, torch.Tensor):
            try:
                found = torch.tensor([float(value) for value in found])
            except (TypeError, ValueError) as error:
                raise BenchError(f"{where}, got {_short(found)}: {error}") from error
        if found.numel() != batch or found.ndim not in (1, 2) or len(found) != batch:
            raise BenchError(f"{where}, got shape {list(found.shape)}")
        if found.is_complex():
            raise BenchError(f"{where}, got complex ones")
        return found.reshape(batch).to(self.device, torch.float32)


def load_function(name: str) -> Callable[[torch.Tensor, list[str]], Any]:
    """The function of a dotted name. Raises BenchError."""
    module_name, _, attribute = name.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a sweep runs a snapshot of the code, and here may be another bench
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code
        raise BenchError(
            f"reward python: cannot import {module_name} (looked in {here} and the environment): "
            f"{type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise BenchError(f"reward python: {module_name} has no function '{attribute}'.{hint}")
    function = getattr(module, attribute)
    if not callable(function):
        raise BenchError(f"reward python: {name} is no function but {_short(function)}")
    return function


def _source(file: Path) -> str:
    with tokenize.open(file) as stream:  # in the encoding that the file itself names
        return stream.read()


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"
