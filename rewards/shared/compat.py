"""Makes hpsv2, image-reward and vbench import beside current torch; changes only what is missing.

Both packages are installed without their dependencies' pins (docs/scorers.md). What stands between them and
transformers 5 is a handful of names that it dropped, and between torchvision and a CPU build of torch two
operator schemas. Nothing is changed in transformers: what image-reward needs is put on its own classes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bench.base.console import verbose
from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.data.packages import APART, INSTALL

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a schema lives as long as its library


@cache
def open_clip() -> Any:
    """hpsv2's own copy of open_clip. Raises BenchError with the command that installs it."""
    with _named_if_missing("hpsv2", "hpsv2x==1.2.0"):
        torchvision()
        with _quietly():
            return importlib.import_module("hpsv2.src.open_clip")


@cache
def image_reward() -> Any:
    """The module `ImageReward.ImageReward`, its BERT runnable on transformers 5. Raises BenchError."""
    with _named_if_missing("imagereward", "image-reward==1.5"):
        torchvision()
        with _quietly(), _dropped_by_transformers_5(), _absent_modules():
            module = importlib.import_module("ImageReward.ImageReward")
        _complete(importlib.import_module("ImageReward.models.BLIP.med").BertPreTrainedModel)
    return module


def vbench(module: str) -> Any:
    """A module of VBench, such as `subject_consistency`. Raises ImportError for what it imports and is not
    there."""
    torchvision()
    with _absent_modules(), _dropped_by_numpy_2():
        return importlib.import_module(f"vbench.{module}")


def build_image_reward(med_config: Path, tokenizer: Any) -> Any:
    """An ImageReward model with its initial weights; `tokenizer` replaces the one that it would download."""
    module = image_reward()
    blip = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    with _attributes(blip, init_tokenizer=lambda: tokenizer):
        return module.ImageReward(med_config=str(med_config))


@cache
def torchvision() -> Any:
    """torchvision: the environment's, else the one apart; made to import where it is built for other torch.

    Such a build lacks its compiled operators (nms and the like); transforms and models need none.
    """
    if importlib.util.find_spec("torchvision") is None and APART.is_dir():
        sys.path.append(str(APART))
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "compiled with different CUDA major versions" in str(error):
            raise BenchError(
                f"torchvision was built for another CUDA than torch {torch.__version__} (built for "
                f"{torch.version.cuda}). Install the one that fits, with the TORCH_INDEX of `make venv`:\n"
                "  rm -rf .venv/scorers .venv/.scorers && make scorers TORCH_INDEX=…"
            ) from error
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    return importlib.import_module("torchvision")


@contextlib.contextmanager
def _named_if_missing(reward: str, package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BenchError(
            f"reward {reward}: needs the package {package} and what it imports ({error}). Install:\n"
            f"  {INSTALL}"
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No warnings, and changes of their filters and of transformers' log level taken back: image-reward
    silences both when it is imported, hpsv2 makes timm warn."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    with warnings.catch_warnings():
        if not verbose():
            warnings.simplefilter("ignore")
        yield
    logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _attributes(target: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(target, name) for name in values if hasattr(target, name)}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(target, name, before[name])
            else:
                delattr(target, name)


@contextlib.contextmanager
def _absent_modules() -> Iterator[None]:
    """Modules that image-reward imports and never uses to score: stand-ins while it is imported.

    ImageReward.ReFL is a training script (it wants `datasets`); clip takes `packaging` from pkg_resources,
    which setuptools has dropped.
    """
    import packaging.version

    stand_ins = {"ImageReward.ReFL": types.ModuleType("ImageReward.ReFL")}
    if importlib.util.find_spec("pkg_resources") is None:
        stand_ins["pkg_resources"] = types.ModuleType("pkg_resources")
        stand_ins["pkg_resources"].packaging = packaging  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


@contextlib.contextmanager
def _dropped_by_numpy_2() -> Iterator[None]:
    """A module that VBench's human_action imports `disp` from, which it never calls."""
    name = "numpy.lib.function_base"
    if importlib.util.find_spec(name) is not None:
        yield
        return
    stand_in = types.ModuleType(name)
    stand_in.disp = print  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _dropped_by_transformers_5() -> Iterator[None]:
    """Names that image-reward's BERT imports from transformers.modeling_utils, where they are not there."""
    modeling = importlib.import_module("transformers.modeling_utils")
    layers = importlib.import_module("transformers.pytorch_utils")
    names = ("apply_chunking_to_forward", "prune_linear_layer", "find_pruneable_heads_and_indices")
    values = {n: getattr(layers, n, _no_pruning) for n in names if not hasattr(modeling, n)}
    with _attributes(modeling, **values):
        yield


def _no_pruning(*args: object, **kwargs: object) -> None:
    raise NotImplementedError("transformers 5 has no pruning of heads")


def _complete(bert: Any) -> None:
    """Give image-reward's BERT base class the methods that transformers 5 took from its own."""
    missing: dict[str, Callable[..., Any] | dict[str, str]] = {
        "get_head_mask": _no_head_mask,
        "invert_attention_mask": _inverted_mask,
        "all_tied_weights_keys": {},
    }
    for name, value in missing.items():
        if not hasattr(bert, name):
            setattr(bert, name, value)


def _no_head_mask(self: Any, head_mask: None, layers: int) -> list[None]:
    return [None] * layers


def _inverted_mask(self: Any, mask: torch.Tensor) -> torch.Tensor:
    """[B, tokens] with 1 for what is attended to → what is added to attention scores, [B, 1, 1, tokens]."""
    return (1 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min
