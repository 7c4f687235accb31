"""Settings → a diffusers pipeline: from a directory in its format, or with random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.utils import logging
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from bench.base.console import verbose
from bench.base.errors import BenchError
from bench.base.whole import check_whole
from bench.data.advice import CHECKPOINTS, how_to_convert
from bench.models.blueprints import Blueprint, blueprint_of, known_pipelines, settings_of
from bench.models.config import ModelConfig
from bench.models.pipeline_settings import check_settings, parts_there
from bench.models.random_weights import architecture, random_parts, read_json
from bench.models.unet3d import Unet3D, read_fps_embedding

if TYPE_CHECKING:
    from diffusers import (
        FluxPipeline,
        StableDiffusion3Pipeline,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        TextToVideoSDPipeline,
        WanPipeline,
    )

    Pipeline = (
        StableDiffusionPipeline
        | StableDiffusionXLPipeline
        | TextToVideoSDPipeline
        | StableDiffusion3Pipeline
        | FluxPipeline
        | WanPipeline
    )

_PADDING = 128  # rows that an encoder's table of words may have more than its tokenizer has words
_SHARD = re.compile(r"-\d+-of-\d+")


def network_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the frozen weights; `half` depends on the device (float16 convolutions crawl on a CPU)."""
    if config.dtype == "half":
        return torch.float16 if device.type == "cuda" else torch.bfloat16
    return getattr(torch, config.dtype)


def decoder_dtype(config: ModelConfig, network: torch.dtype, upcast: bool) -> torch.dtype:
    """The dtype of the decoder. upcast: its activations leave the range of float16, up to 1e6."""
    if config.vae_dtype != "auto":
        return getattr(torch, config.vae_dtype)
    upcast = upcast or (config.source is not None and config.source.startswith("embedded:"))
    return torch.float32 if upcast and network == torch.float16 else network


def load_pipeline(config: ModelConfig, dtype: torch.dtype, family: str = "image") -> Pipeline:
    """The pipeline of config.path, or of a `random:` source, on the CPU. Raises BenchError.

    What its settings say is checked before its weights are read. family: which kinds of pipelines are meant.
    """
    if config.path is None and config.source is not None and config.source.startswith("random:"):
        directory = architecture(config.source.removeprefix("random:"))
        cls, blueprint = _class_of(directory, family)
        check_settings(directory, directory / blueprint.network, blueprint, config)
        parts = random_parts(directory, dtype, parts_there(directory, blueprint, config))
        with _quiet():
            return cls(**parts, **blueprint.left_out)
    if config.path is None:
        raise BenchError("model.path: a directory in diffusers' format is needed")
    if not (config.path / "model_index.json").is_file():
        checkpoint = next((f for f in sorted(config.path.iterdir()) if f.suffix in CHECKPOINTS), None)
        advice = "" if checkpoint is None else f"\n{how_to_convert(checkpoint)}"
        raise BenchError(
            f"{config.path}: no model_index.json there, so not a pipeline in diffusers' format{advice}"
        )
    cls, blueprint = _class_of(config.path, family)
    network = _network_place(config, blueprint)
    check_settings(config.path, network, blueprint, config)
    parts: dict[str, Any] = {
        name: _part(
            blueprint, name, network if name == blueprint.network else config.path / name, config, dtype
        )
        for name in parts_there(config.path, blueprint, config)
    }
    for name in blueprint.optional - parts.keys():
        parts |= {name: None, name.replace("text_encoder", "tokenizer"): None}
    try:
        with _quiet():
            pipeline: Any = cls.from_pretrained(
                config.path, local_files_only=True, **blueprint.left_out, **parts
            )
    except (OSError, ValueError) as error:
        raise BenchError(f"{config.path}: cannot be loaded as a {cls.__name__}: {error}") from error
    assert isinstance(pipeline, cls)
    _check_tokenizers(pipeline, config.path)
    return pipeline


def _check_tokenizers(pipeline: Any, directory: Path) -> None:
    """Raises BenchError unless tokenizers know their encoders' words: without its vocabulary's file one knows
    next to none, and does not say so."""
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        if getattr(pipeline, name, None) is None:
            continue
        known = len(getattr(pipeline, name))
        words = getattr(pipeline, name.replace("tokenizer", "text_encoder")).config.vocab_size
        if not 0 <= words - known < _PADDING:
            raise BenchError(
                f"{directory / name}: this tokenizer knows {known} words, and the text encoder {words}: its "
                "vocabulary (vocab.json and merges.txt, tokenizer.json, or spiece.model) is not there "
                "or another model's"
            )


def check_weights_are_there(config: ModelConfig, family: str) -> None:
    """Raise BenchError, naming the directory, where a part of the pipeline has no weight files."""
    assert config.path is not None
    _, blueprint = _class_of(config.path, family)
    for name in parts_there(config.path, blueprint, config):
        place = _network_place(config, blueprint) if name == blueprint.network else config.path / name
        if not _variants(place):
            raise BenchError(
                f"{place}: no weight files (*.safetensors or *.bin) in it: fetch or copy the rest"
            )


def _network_place(config: ModelConfig, blueprint: Blueprint) -> Path:
    """The pipeline's own network, or another repository's UNet in its place (config.unet_path)."""
    assert config.path is not None
    if config.unet_path is None:
        return config.path / blueprint.network
    return config.unet_path if (config.unet_path / "config.json").is_file() else config.unet_path / "unet"


def _part(blueprint: Blueprint, name: str, place: Path, config: ModelConfig, dtype: torch.dtype) -> nn.Module:
    """A part of the pipeline, all its numbers from its files: the pipeline's own loader would fill in random
    ones. Raises BenchError.

    config.variant: of the network, and of other parts if they have it.
    """
    cls, optional = blueprint.parts[name], name != blueprint.network
    variant = None if optional and config.variant not in _variants(place) else config.variant
    # transformers says which are of another shape only to those who would not mind; diffusers, always.
    options = {"ignore_mismatched_sizes": True} if issubclass(cls, PreTrainedModel) else {}
    loader: Any = cls
    try:
        with _quiet():
            network, found = loader.from_pretrained(
                place,
                dtype=dtype,
                variant=variant,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        hint = _variant_hint(config, place)
        raise BenchError(f"{place}: cannot be loaded as a {cls.__name__}: {error}{hint}") from error
    check_whole(found, str(place), cls.__name__)
    if isinstance(network, Unet3D):
        read_fps_embedding(network, place)
    return network


def use_sdpa(network: Any) -> None:
    """PyTorch's fused attention in every attention layer of a network or decoder: memory linear in the
    pixels. Transformers and Wan's decoder have it as they come.

    It is called without the layers' own `forward`, which looks up its signature in every call.
    """
    if isinstance(network, UNet2DConditionModel | Unet3D | AutoencoderKL):
        network.set_attn_processor(AttnProcessor2_0())
    layers: Any = (
        layer for layer in network.modules() if isinstance(layer, Attention | AttentionModuleMixin)
    )
    for layer in layers:
        layer.forward = partial(layer.processor, layer)


def _class_of(directory: Path, family: str) -> tuple[type[Any], Blueprint]:
    index = read_json(directory / "model_index.json")
    name, known = str(index["_class_name"]) if "_class_name" in index else "none", known_pipelines()
    if name not in known or known[name] != family:
        own = " and ".join(pipeline for pipeline, of in known.items() if of == family)
        other = ""
        if name in known:
            other = f"\n  The {known[name]} family does: --set model.family={known[name]}"
            other = f"{other} {settings_of(known[name])}".rstrip()
        raise BenchError(f"{directory}: a pipeline of class {name}; the {family} family loads {own}{other}")
    return getattr(diffusers, name), blueprint_of(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries log of loading: tables of missing tensors, which `check_whole` names, and
    that TextToVideoSDPipeline gets no more bug fixes."""
    before = [(library, library.get_verbosity()) for library in (logging, transformers_logging)]
    try:
        for library, _ in () if verbose() else before:
            library.set_verbosity_error()
        yield
    finally:
        for library, verbosity in before:
            library.set_verbosity(verbosity)


def _variants(place: Path) -> set[str | None]:
    """The variants of the weight files in a part's directory; None is that without a name."""
    names = [path.stem for suffix in ("safetensors", "bin") for path in place.glob(f"*.{suffix}")]
    return {_SHARD.sub("", name).partition(".")[2] or None for name in names}


def _variant_hint(config: ModelConfig, place: Path) -> str:
    """What to set when the weight files are there under another variant's name."""
    found = _variants(place) - {config.variant}
    if None in found:
        return "\n  The files are there without a variant: --set model.variant=null"
    return "".join(
        f"\n  Files of variant {name} are there: --set model.variant={name}"
        for name in sorted(map(str, found))
    )
