"""Settings → a diffusers pipeline: from a directory in Stable Diffusion format, or with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, TextToVideoSDPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.utils import logging

from bench.base.errors import BenchError
from bench.models.config import ModelConfig
from bench.models.random_weights import architecture, random_parts, read_json
from bench.models.unet3d import Unet3D, read_fps_embedding

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline | TextToVideoSDPipeline
FAMILIES: dict[str, dict[str, type[Pipeline]]] = {
    "image": {
        "StableDiffusionPipeline": StableDiffusionPipeline,
        "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
    },
    "video": {"TextToVideoSDPipeline": TextToVideoSDPipeline},
}
# Parts that only judge or watermark pictures, or need them as input: never loaded.
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    },
    "StableDiffusionXLPipeline": {"feature_extractor": None, "image_encoder": None, "add_watermarker": False},
    "TextToVideoSDPipeline": {},
}


def network_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the frozen weights; `half` depends on the device (float16 convolutions crawl on a CPU)."""
    if config.dtype == "half":
        return torch.float16 if device.type == "cuda" else torch.bfloat16
    return getattr(torch, config.dtype)


def decoder_dtype(config: ModelConfig, vae_settings: Any, network: torch.dtype, sdxl: bool) -> torch.dtype:
    """The dtype of the decoder. vae_settings: its config."""
    if config.vae_dtype != "auto":
        return getattr(torch, config.vae_dtype)
    upcast = sdxl and network == torch.float16 and vae_settings["force_upcast"]
    return torch.float32 if upcast else network


def load_pipeline(config: ModelConfig, dtype: torch.dtype, family: str = "image") -> Pipeline:
    """The pipeline of config.path, or of a `random:` source, on the CPU. Raises BenchError.

    family: which kinds of pipelines are meant, `image` or `video`.
    """
    if config.path is None and config.source is not None and config.source.startswith("random:"):
        directory = architecture(config.source.removeprefix("random:"))
        cls, left_out = _class_of(directory, family)
        parts = random_parts(directory, dtype)
        with _not_told_of_deprecation():
            return cls(**parts, **left_out)
    if config.path is None:
        raise BenchError("model.path: a directory in Stable Diffusion format is needed")
    if not (config.path / "model_index.json").is_file():
        raise BenchError(f"{config.path}: no model_index.json there, so not a pipeline in diffusers' format")
    cls, left_out = _class_of(config.path, family)
    parts = {"unet": _video_unet(config, dtype)} if cls is TextToVideoSDPipeline else {}
    try:
        with _not_told_of_deprecation():
            pipeline = cls.from_pretrained(
                config.path, dtype=dtype, variant=config.variant, local_files_only=True, **left_out, **parts
            )
    except (OSError, ValueError) as error:
        hint = _variant_hint(config)
        raise BenchError(
            f"{config.path}: cannot be loaded as a Stable Diffusion pipeline: {error}{hint}"
        ) from error
    assert isinstance(pipeline, cls)
    return pipeline


def _video_unet(config: ModelConfig, dtype: torch.dtype) -> Unet3D:
    """The pipeline's own UNet, or another repository's in its place (config.unet_path). Raises BenchError."""
    assert config.path is not None
    place = config.path / "unet" if config.unet_path is None else config.unet_path
    if config.unet_path is not None and not (place / "config.json").is_file():
        place /= "unet"
    try:
        loaded: Any = Unet3D.from_pretrained(
            place, dtype=dtype, variant=config.variant, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        hint = _variant_hint(config) if config.unet_path is None else ""
        raise BenchError(f"{place}: cannot be loaded as a UNet3DConditionModel: {error}{hint}") from error
    unet, found = loaded
    if found["missing_keys"]:
        raise BenchError(f"{place}: no whole UNet3DConditionModel: it lacks {min(found['missing_keys'])}")
    assert isinstance(unet, Unet3D)
    read_fps_embedding(unet, place)
    return unet


def use_sdpa(pipeline: Pipeline) -> None:
    """PyTorch's fused attention in every attention layer of UNet and decoder: memory linear in the pixels."""
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    pipeline.vae.set_attn_processor(AttnProcessor2_0())


def _class_of(directory: Path, family: str) -> tuple[type[Pipeline], dict[str, Any]]:
    index = read_json(directory / "model_index.json")
    name = str(index["_class_name"]) if "_class_name" in index else "none"
    known = FAMILIES[family]
    if name not in known:
        other = "".join(
            f"\n  The {of} family does: --set model.family={of}"
            + (" --set model.frames=16" * (of == "video"))
            for of, names in FAMILIES.items()
            if name in names
        )
        raise BenchError(
            f"{directory}: a pipeline of class {name}; the {family} family loads {' and '.join(known)}{other}"
        )
    return known[name], _LEFT_OUT[name]


@contextmanager
def _not_told_of_deprecation() -> Iterator[None]:
    """diffusers says of each TextToVideoSDPipeline that it gets no more bug fixes."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _variant_hint(config: ModelConfig) -> str:
    """What to set when the weight files are there under another variant's name."""
    assert config.path is not None
    found = {path.name.split(".")[-2] for path in config.path.glob("unet/*.*.safetensors")}
    found = {name for name in found if name != config.variant and not name.startswith("safetensors")}
    plain = config.variant is not None and any(config.path.glob("unet/diffusion_pytorch_model.safetensors"))
    if plain:
        return "\n  The files are there without a variant: --set model.variant=null"
    return "".join(
        f"\n  Files of variant {name} are there: --set model.variant={name}" for name in sorted(found)
    )
