"""Settings → a diffusers pipeline: from a directory in Stable Diffusion format, or with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor2_0

from bench.errors import BenchError
from bench.models.config import ModelConfig
from bench.models.random_weights import architecture, random_parts, read_json

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline
PIPELINES: dict[str, type[Pipeline]] = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
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


def load_pipeline(config: ModelConfig, dtype: torch.dtype) -> Pipeline:
    """The pipeline of config.path, or of a `random:` source, on the CPU. Raises BenchError."""
    if config.path is None and config.source is not None and config.source.startswith("random:"):
        directory = architecture(config.source.removeprefix("random:"))
        cls, left_out = _class_of(directory)
        return cls(**random_parts(directory, dtype), **left_out)
    if config.path is None:
        raise BenchError("model.path: a directory in Stable Diffusion format is needed")
    if not (config.path / "model_index.json").is_file():
        raise BenchError(f"{config.path}: no model_index.json there, so not a pipeline in diffusers' format")
    cls, left_out = _class_of(config.path)
    try:
        pipeline = cls.from_pretrained(
            config.path, dtype=dtype, variant=config.variant, local_files_only=True, **left_out
        )
    except (OSError, ValueError) as error:
        hint = _variant_hint(config)
        raise BenchError(
            f"{config.path}: cannot be loaded as a Stable Diffusion pipeline: {error}{hint}"
        ) from error
    assert isinstance(pipeline, cls)
    return pipeline


def use_sdpa(pipeline: Pipeline) -> None:
    """PyTorch's fused attention in every attention layer of UNet and decoder: memory linear in the pixels."""
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    pipeline.vae.set_attn_processor(AttnProcessor2_0())


def _class_of(directory: Path) -> tuple[type[Pipeline], dict[str, Any]]:
    index = read_json(directory / "model_index.json")
    name = str(index["_class_name"]) if "_class_name" in index else "none"
    if name not in PIPELINES:
        raise BenchError(
            f"{directory}: a pipeline of class {name}; the image family loads {' and '.join(PIPELINES)}"
        )
    return PIPELINES[name], _LEFT_OUT[name]


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
