"""Pipelines with random numbers for weights: a model's shapes, costs and code paths without its download.

Every layer keeps the variance of what it is given (std 1/√fan_in), norms are the identity. So pictures depend
on the prompt and the noise and stay finite through any number of steps, in half precision too, though they
show nothing.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedModel

from bench.base.errors import BenchError, did_you_mean
from bench.models.blueprints import blueprint_of, known_pipelines
from bench.models.clip_bpe import write_clip_tokenizer
from bench.models.only_shapes import only_shapes
from bench.models.t5_pieces import is_t5, t5_tokenizer
from bench.models.unet3d import add_fps_embedding

ARCHITECTURES = Path(__file__).parent / "architectures"
ALIASES = {
    "sd15": ARCHITECTURES / "sd14",
    "tiny": Path(__file__).parent / "embedded" / "weights" / "sd",
    "tiny-video": Path(__file__).parent / "embedded" / "weights" / "video",
    "tiny-flow": Path(__file__).parent / "embedded" / "weights" / "flow",
}
SEED = 0


def architecture(place: str) -> Path:
    """The directory with the configs of a shipped architecture, or `place` itself if it is a directory.

    Raises BenchError that lists the shipped ones.
    """
    shipped = {path.parent.name: path.parent for path in sorted(ARCHITECTURES.glob("*/model_index.json"))}
    known = shipped | ALIASES
    if place in known:
        return known[place]
    directory = Path(place).expanduser()
    if (directory / "model_index.json").is_file():
        return directory.resolve()
    names = sorted(known)
    raise BenchError(
        f"model.source: random:{place}: neither a shipped architecture nor a directory with a "
        f"model_index.json.{did_you_mean(place, names)} Known: {', '.join(names)}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A config file's contents. Raises BenchError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot be read as JSON: {error}") from error


def empty_parts(directory: Path, wanted: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The networks of an architecture without memory for their weights (torch's meta device), by name.

    wanted: their names; None: all that the architecture has. Raises BenchError for a pipeline of an unknown
    class.
    """
    index = read_json(directory / "model_index.json")
    if index["_class_name"] not in known_pipelines():
        names = ", ".join(known_pipelines())
        raise BenchError(f"{directory}: a pipeline of class {index['_class_name']}; known: {names}")
    blueprint, parts = blueprint_of(index["_class_name"]), dict[str, nn.Module]()
    with torch.device("meta"):
        for name, cls in blueprint.parts.items():
            there = name not in blueprint.optional or (name in index and index[name][1] is not None)
            if not there or (wanted is not None and name not in wanted):
                continue
            settings = read_json(directory / name / "config.json")
            if issubclass(cls, PreTrainedModel):
                parts[name] = cls(cls.config_class.from_dict(settings))  # type: ignore[union-attr]
                continue
            told_fps = settings.pop("fps_cond", False)  # VideoCrafter2's, which diffusers does not know
            module: Any = cls.from_config(settings)  # type: ignore[attr-defined]
            if told_fps:
                add_fps_embedding(module)
            parts[name] = module
    return parts


def random_parts(directory: Path, dtype: torch.dtype, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """All parts of the architecture's pipeline by name, on the CPU, with the same numbers at every call.

    wanted: names of the networks, as for `empty_parts`; text encoders left out are None, as their tokenizers
    are. Another dtype has other numbers. Tokenizers: the directory's own where it has a vocabulary, else
    CLIP's, and for T5 one made of CLIP's.
    """
    parts: dict[str, Any] = {}
    for n, (name, module) in enumerate(empty_parts(directory, wanted).items()):
        parts[name] = fill(module, dtype, SEED + n)
    for name, cls in blueprint_of(read_json(directory / "model_index.json")["_class_name"]).parts.items():
        tokenizer = name.replace("text_encoder", "tokenizer")
        if tokenizer == name:
            continue
        if name not in parts:
            parts |= {name: None, tokenizer: None}
        else:
            parts[tokenizer] = t5_tokenizer() if is_t5(cls) else _tokenizer(directory / tokenizer)
    settings = read_json(directory / "scheduler" / "scheduler_config.json")
    parts["scheduler"] = getattr(diffusers, settings["_class_name"]).from_config(settings)
    return parts


def fill(module: nn.Module, dtype: torch.dtype, seed: int) -> nn.Module:
    """Give a network on the meta device its memory and its random numbers; frozen, in evaluation mode."""
    # Not Module.to: diffusers' own warns of modules that it keeps in float32, and there are none here.
    nn.Module.to(module, dtype)
    _keep_float32(module)
    if only_shapes(module):
        return module.requires_grad_(False).eval()
    module.to_empty(device="cpu")
    if isinstance(module, PreTrainedModel):
        module.tie_weights()  # which the move has taken apart
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            for name, values in layer.named_parameters(recurse=False):
                _initialise(layer, name, values, generator)
            for name, values in layer.named_buffers(recurse=False):
                if name == "position_ids":
                    values.copy_(torch.arange(values.shape[-1]).expand_as(values))
                elif isinstance(layer, PatchEmbed):
                    values.copy_(_places(layer, values))
                elif isinstance(layer, WanRotaryPosEmbed):
                    angles = WanRotaryPosEmbed(layer.attention_head_dim, layer.patch_size, layer.max_seq_len)
                    values.copy_(angles.get_buffer(name))
                else:
                    raise BenchError(f"random weights: unknown buffer '{name}' of {type(layer).__name__}")
    return module.requires_grad_(False).eval()


def _keep_float32(module: nn.Module) -> None:
    """What diffusers does not load in half precision."""
    if not isinstance(module, ModelMixin) or not module._keep_in_fp32_modules:
        return
    kept = set(module._keep_in_fp32_modules)
    for name, values in (*module.named_parameters(), *module.named_buffers()):
        if not kept.isdisjoint(name.split(".")):
            values.data = values.data.float()


def _initialise(layer: nn.Module, name: str, values: Tensor, generator: torch.Generator) -> None:
    if name not in ("weight", "gamma"):
        values.zero_()
    elif values.ndim == 1 or name == "gamma":
        values.fill_(1.0)  # a norm's
    else:
        fan_in = 1 if isinstance(layer, nn.Embedding) else values[0].numel()
        limit = math.sqrt(3 / fan_in)  # uniform: three times faster to draw than normal numbers
        values.uniform_(-limit, limit, generator=generator)


def _places(layer: PatchEmbed, values: Tensor) -> Tensor:
    """The sines and cosines of the patches' places that the layer itself begins with, [1, places, width]."""
    return get_2d_sincos_pos_embed(
        values.shape[-1],
        math.isqrt(values.shape[-2]),
        base_size=layer.base_size,
        interpolation_scale=layer.interpolation_scale,
        output_type="pt",
    )[None]


def _tokenizer(directory: Path) -> CLIPTokenizer:
    if (directory / "vocab.json").is_file() or (directory / "tokenizer.json").is_file():
        return CLIPTokenizer.from_pretrained(directory, local_files_only=True)
    settings = read_json(directory / "tokenizer_config.json")
    with tempfile.TemporaryDirectory() as scratch:
        return write_clip_tokenizer(Path(scratch), settings["pad_token"], settings["model_max_length"])
