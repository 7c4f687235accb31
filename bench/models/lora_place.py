"""Which file a LoRA is in. No torch here."""

from __future__ import annotations

from pathlib import Path

from bench.base.errors import BenchError

PEFT_WEIGHTS, PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def weights_file(place: Path) -> Path:
    """The one .safetensors file of a LoRA: `place` itself, or in the directory that it is.

    Raises BenchError if there is none or more than one, and for PyTorch's own files.
    """
    if place.is_file():
        if place.suffix == ".safetensors":
            return place
        raise _pickled(place) if place.suffix in _PICKLED else BenchError(f"{place}: no .safetensors file")
    found = sorted(place.glob("*.safetensors"))
    if (place / PEFT_SETTINGS).is_file() and place / PEFT_WEIGHTS in found:
        return place / PEFT_WEIGHTS
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise BenchError(
            f"{place}: holds {len(found)} .safetensors files ({names}): name the one that is meant"
        )
    if not found:
        pickled = next((f for f in sorted(place.glob("*")) if f.suffix in _PICKLED), None)
        if pickled is not None:
            raise _pickled(pickled)
        raise BenchError(f"{place}: neither a cell with a trained LoRA nor a directory or file with one")
    return found[0]


def _pickled(file: Path) -> BenchError:
    new = file.with_suffix(".safetensors")
    return BenchError(
        f"{file}: a file of PyTorch's own format, which could run code; LoRAs are read from .safetensors. "
        "Convert it:\n"
        f'  python -c "import torch; from safetensors.torch import save_file as s; '
        f"s({{k: v.contiguous() for k, v in torch.load('{file}', weights_only=True).items()}}, '{new}')\""
    )
