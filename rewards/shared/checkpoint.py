"""Frozen scorers: reading PyTorch weight files safely, random weights in their place, and precision."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from safetensors import SafetensorError

from bench.base.errors import BenchError
from bench.base.lazy import torch
from bench.base.whole import check_whole, some
from bench.models.only_shapes import only_shapes

Dtype = Literal["half", "float32", "float16", "bfloat16"]
HALF = "of the frozen model; half: float16 on CUDA, bfloat16 elsewhere; scores are float32"
CHUNK = "pictures that are in the network at once, which bounds memory"
Module = TypeVar("Module", bound="torch.nn.Module")


def torch_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """`half` is float16 on CUDA, where it is the more precise of the two, and bfloat16 on a CPU."""
    if name == "half":
        return torch.float16 if device.type == "cuda" else torch.bfloat16
    return getattr(torch, name)


def read_state(path: Path, inside: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file, memory-mapped. inside: the key that they are under, if any.

    Only tensors and plain containers are unpickled. Raises BenchError for a file that is missing, damaged,
    holds code, or holds something else.
    """
    if not path.is_file():
        raise BenchError(f"{path}: not there. Point to a directory that has {path.name}.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "Unsupported global" in str(error):
            raise BenchError(
                f"{path}: holds more than weights: loading it could run code, so it is refused. Get the "
                "original file again."
            ) from error
        with path.open("rb") as file:
            begins = file.read(24)
        raise BenchError(f"{path}: {_DAMAGED}. It begins with {begins!r}") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise BenchError(f"{path}: {_DAMAGED}: {_first_line(error)}") from error
    state = found[inside] if inside is not None and isinstance(found, dict) and inside in found else found
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BenchError(f"{path}: expected weights by name, found {type(state).__name__}")
    return dict(state)


_DAMAGED = "cannot be read as PyTorch weights; it may be damaged or cut short, so fetch it again"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def read_model(cls: type[Any], directory: Path, reward: str, kind: str, dtype: torch.dtype) -> Any:
    """A whole model of transformers' class `cls` on the CPU. Tensors are cast as they are read: a file in
    float32 takes no more than the model. kind: for messages. Raises BenchError."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        loaded: Any = cls.from_pretrained(
            directory, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"reward {reward}: {directory}: pytorch_model.bin is damaged, or holds more than weights, so "
            "that loading it could run code: it is refused. Get the original file again, or "
            "model.safetensors."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise BenchError(
            f"reward {reward}: {directory} is not a usable {kind} checkpoint; it may be damaged or cut "
            f"short, so fetch it again: {error}"
        ) from error
    model, found = loaded
    check_whole(found, f"reward {reward}: {directory}", kind)
    return model


def read_tokenizer(cls: type[Any], directory: Path, reward: str) -> Any:
    """A tokenizer of transformers' class `cls`. Raises BenchError."""
    try:
        return cls.from_pretrained(directory)
    except Exception as error:  # transformers raises anything; the library below it, Exception itself
        raise BenchError(
            f"reward {reward}: the tokenizer in {directory} cannot be read: {_first_line(error)}"
        ) from error


def check_vocabulary(tokenizer: Any, words: int, directory: Path, reward: str) -> None:
    """Raises BenchError unless the tokenizer is the model's: without its vocabulary's file it knows next to
    nothing, and does not say so."""
    if len(tokenizer) != words:
        raise BenchError(
            f"reward {reward}: the tokenizer in {directory} knows {len(tokenizer)} words, but the model has "
            f"{words}: its vocabulary (vocab.json and merges.txt, vocab.txt, or tokenizer.json) is not there "
            "or is another model's. Fetch it again, or set the right directory."
        )


def assign(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, extras: bool = False) -> None:
    """Put the weights into the model; names and shapes must fit. Raises BenchError.

    extras: weights that the model does not have are passed over.
    """
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state]
    strange = [] if extras else [k for k in state if k not in wanted]
    shapes = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    for what, keys in (("it lacks", missing), ("it has unknown", strange), ("of another shape:", shapes)):
        if keys:
            raise BenchError(f"{path}: not this model's weights: {what} {some(keys)}")
    model.load_state_dict(state, strict=False, assign=True)


def without_weights(build: Callable[[], Module]) -> Module:
    """The module on the meta device: shapes only, no time for initial values that are replaced anyway."""
    with torch.device("meta"):
        return build()


def fill_random(model: Module, dtype: torch.dtype, name: str) -> Module:
    """The module on the CPU with weights that depend only on `name`, for runs without the real ones.

    Matrices and embeddings are normal with variance 1 / fan-in, norms start as the identity. Buffers
    that are not saved are left for the caller where the module is on the meta device.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if only_shapes(model):
        return model.to(dtype)
    model = model.to_empty(device="cpu") if next(model.parameters()).is_meta else model
    model = model.to(dtype)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1 or key.endswith("class_embedding"):
                wide = torch.empty(weight.shape)  # drawing in half precision takes ten times as long
                weight.copy_(wide.normal_(std=weight[:1].numel() ** -0.5, generator=generator))
            else:
                weight.fill_(1.0 if key.endswith("weight") else 0.0)
    return model


def random_model(build: Callable[[], Module], name: str) -> Module:
    """What `build` makes, in float32 on the CPU, with weights that depend only on `name`."""
    return fill_random(without_weights(build), torch.float32, name)


def freeze(model: Module, device: torch.device) -> Module:
    """In evaluation mode on the device, without gradients for its weights."""
    return model.to(device).eval().requires_grad_(False)


class HashTokenizer:
    """Words → ids by a checksum: what reads prompts where no vocabulary is, as with random weights.

    first, last, pad: ids of the special tokens; words get ids in [low, high).
    """

    def __init__(self, first: int, last: int, pad: int, words: tuple[int, int], max_length: int) -> None:
        self.first, self.last, self.pad, self.max_length = first, last, pad, max_length
        self.low, self.high = words

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        """input_ids and attention_mask [B, max_length], as a transformers tokenizer returns them."""
        from transformers import BatchEncoding

        rows = [[self.first, *self._words(text)[: self.max_length - 2], self.last] for text in texts]
        masks = [[1] * len(row) + [0] * (self.max_length - len(row)) for row in rows]
        padded = [row + [self.pad] * (self.max_length - len(row)) for row in rows]
        return BatchEncoding({"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(masks)})

    def _words(self, text: str) -> list[int]:
        span = self.high - self.low
        return [self.low + zlib.crc32(word.encode()) % span for word in text.lower().split()]
