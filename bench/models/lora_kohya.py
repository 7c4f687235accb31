"""A cell's LoRA under the names of kohya's programs (sd-scripts, musubi-tuner), with an alpha for each layer.

UNets of pictures keep the names that diffusers gives their layers, underscores for dots. Those of Stable
Diffusion 3, FLUX.1 and Wan have the names of the models' own code, where layers that read the same input may
be one (q, k and v): its A is theirs stacked, its B block diagonal, so it changes what they change.

Sources: sd-scripts' networks/lora_sd3.py, networks/lora_flux.py and networks/convert_flux_lora.py; diffusers'
lora_conversion_utils.py, which reads FLUX.1's and Wan's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.whole import some

_ENDINGS = (".lora_A.weight", ".lora_B.weight")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a block
Layers = dict[str, tuple[Tensor, Tensor]]  # A and B by layer


class _Layer(NamedTuple):
    """A layer of kohya's, `{}` for its block's number, and the layers of diffusers that it is.

    widths: rows of each one's output, as multiples of the first one's.
    """

    name: str
    parts: tuple[str, ...]
    widths: tuple[int, ...] = (1,)


def _qkv(name: str, block: str, *parts: str) -> _Layer:
    return _Layer(name, tuple(f"{block}.{part}" for part in parts), (1,) * len(parts))


def _sd3() -> Iterator[_Layer]:
    ours, theirs = "transformer_blocks.{}", "joint_blocks_{}"
    yield _qkv(f"{theirs}_x_block_attn_qkv", ours, "attn.to_q", "attn.to_k", "attn.to_v")
    yield _qkv(f"{theirs}_x_block_attn2_qkv", ours, "attn2.to_q", "attn2.to_k", "attn2.to_v")
    yield _qkv(
        f"{theirs}_context_block_attn_qkv", ours, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"
    )
    for name, part in {
        "x_block_attn_proj": "attn.to_out.0",
        "x_block_attn2_proj": "attn2.to_out.0",
        "x_block_mlp_fc1": "ff.net.0.proj",
        "x_block_mlp_fc2": "ff.net.2",
        "context_block_attn_proj": "attn.to_add_out",
        "context_block_mlp_fc1": "ff_context.net.0.proj",
        "context_block_mlp_fc2": "ff_context.net.2",
    }.items():
        yield _Layer(f"{theirs}_{name}", (f"{ours}.{part}",))


def _flux() -> Iterator[_Layer]:
    ours, theirs = "transformer_blocks.{}", "double_blocks_{}"
    yield _qkv(f"{theirs}_img_attn_qkv", ours, "attn.to_q", "attn.to_k", "attn.to_v")
    yield _qkv(f"{theirs}_txt_attn_qkv", ours, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
    for name, part in {
        "img_attn_proj": "attn.to_out.0",
        "img_mlp_0": "ff.net.0.proj",
        "img_mlp_2": "ff.net.2",
        "img_mod_lin": "norm1.linear",
        "txt_attn_proj": "attn.to_add_out",
        "txt_mlp_0": "ff_context.net.0.proj",
        "txt_mlp_2": "ff_context.net.2",
        "txt_mod_lin": "norm1_context.linear",
    }.items():
        yield _Layer(f"{theirs}_{name}", (f"{ours}.{part}",))
    ours, theirs = "single_transformer_blocks.{}", "single_blocks_{}"
    parts = tuple(f"{ours}.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
    yield _Layer(f"{theirs}_linear1", parts, (1, 1, 1, 4))
    yield _Layer(f"{theirs}_linear2", (f"{ours}.proj_out",))
    yield _Layer(f"{theirs}_modulation_lin", (f"{ours}.norm.linear",))


def _wan() -> Iterator[_Layer]:
    for theirs, ours in {"self_attn": "attn1", "cross_attn": "attn2"}.items():
        for name, part in {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}.items():
            yield _Layer(f"blocks_{{}}_{theirs}_{name}", (f"blocks.{{}}.{ours}.{part}",))
    for name, part in {"0": "net.0.proj", "2": "net.2"}.items():
        yield _Layer(f"blocks_{{}}_ffn_{name}", (f"blocks.{{}}.ffn.{part}",))


_TABLES = {"sd3": _sd3, "flux": _flux, "wan": _wan}  # by family


def to_kohya(family: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file that `pipe.save_lora_weights` wrote, and its metadata, in kohya's style.

    Raises BenchError if kohya's programs have no name for a layer, or for the whole family.
    """
    prefix = min(tensors).partition(".")[0]
    layers = _layers(tensors, f"{prefix}.")
    if any(settings.get(f"{prefix}.{key}") for key in ("rank_pattern", "alpha_pattern")):
        raise BenchError("layers have ranks or alphas of their own, which no cell's LoRA has")
    scale = float(settings[f"{prefix}.lora_alpha"]) / float(settings[f"{prefix}.r"])
    if family == "image":
        named = {layer.replace(".", "_"): both for layer, both in layers.items()}
    elif family in _TABLES:
        named = _joined(_table(family), layers)
    else:
        raise BenchError(f"kohya's programs have no names for models of family {family}")
    found = dict[str, Tensor]()
    for name, (down, up) in named.items():
        found[f"lora_unet_{name}.lora_down.weight"] = down.contiguous()
        found[f"lora_unet_{name}.lora_up.weight"] = up.contiguous()
        found[f"lora_unet_{name}.alpha"] = torch.tensor(scale * len(down))
    return found


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> Layers:
    """A and B of every layer, named as in the network. Raises BenchError for tensors that are neither."""
    if strange := [key for key in tensors if not key.startswith(prefix) or not key.endswith(_ENDINGS)]:
        raise BenchError(f"{some(strange)} is no tensor of a cell's LoRA")
    down, up = _ENDINGS
    names = sorted(key.removeprefix(prefix).removesuffix(down) for key in tensors if key.endswith(down))
    return {name: (tensors[f"{prefix}{name}{down}"], tensors[f"{prefix}{name}{up}"]) for name in names}


def _table(family: str) -> dict[str, tuple[_Layer, int]]:
    """Layers of diffusers, `{}` for their blocks' numbers → the layer that it is, and which part of it."""
    return {part: (layer, k) for layer in _TABLES[family]() for k, part in enumerate(layer.parts)}


def _joined(table: Mapping[str, tuple[_Layer, int]], layers: Layers) -> Layers:
    """A and B by kohya's layer."""
    places = {name: (_NUMBER.sub("{}", name, 1), _NUMBER.search(name)) for name in layers}
    if unknown := [name for name, (general, _) in places.items() if general not in table]:
        raise BenchError(f"kohya's programs have no name for {some(unknown)}")
    parts = dict[tuple[_Layer, str], dict[int, tuple[Tensor, Tensor]]]()
    for name, (general, number) in places.items():
        layer, k = table[general]
        assert number is not None  # every name in the tables has one
        parts.setdefault((layer, number[0]), {})[k] = layers[name]
    return {
        layer.name.format(number): _as_one(layer, found) if len(layer.parts) > 1 else found[0]
        for (layer, number), found in parts.items()
    }


def _as_one(layer: _Layer, found: Mapping[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A: [parts · rank, in]; B: [outputs of all parts, parts · rank]. Zeros stand for parts without LoRA."""
    k, (down, up) = next(iter(found.items()))
    width = len(up) // layer.widths[k]
    nothing = [(torch.zeros_like(down), up.new_zeros(width * n, up.shape[1])) for n in layer.widths]
    both = [found.get(n, nothing[n]) for n in range(len(layer.parts))]
    return torch.cat([a for a, _ in both]), torch.block_diag(*(b for _, b in both))
