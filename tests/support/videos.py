"""Video chains on small random pipelines, built once per test process."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import TextToVideoSDPipeline

from bench.models.config import LoraConfig, ModelConfig
from bench.models.pipeline import load_pipeline
from bench.models.random_weights import architecture, random_parts
from bench.models.video import VideoChain
from tests.support.pipelines import CPU, SCRATCH, SMALL_TEXT, SMALL_VAE, change
from tests.support.toys import fill

FRAMES = 3
_UNET: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
}


@cache
def small_video_architecture(channels: int = 4, fps: bool = False) -> Path:
    """The configs of a video model with few and narrow layers: 16×16 pixels, latents of 8×8."""
    directory = SCRATCH / f"small-video-{channels}-{fps}"
    shutil.copytree(architecture("videocrafter2" if fps else "modelscope"), directory)
    change(directory / "unet" / "config.json", _UNET | {"in_channels": channels, "out_channels": channels})
    change(directory / "vae" / "config.json", SMALL_VAE | {"latent_channels": channels})
    change(directory / "text_encoder" / "config.json", SMALL_TEXT)
    return directory


@cache
def video_dir() -> Path:
    """A pipeline on disk, in diffusers' own format."""
    config = ModelConfig(family="video", frames=FRAMES, source=f"random:{small_video_architecture()}")
    directory = SCRATCH / "video"
    pipeline = load_pipeline(config, torch.float32, "video")
    pipeline.save_pretrained(directory)
    index = json.loads((directory / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet3DConditionModel"]  # as published
    (directory / "model_index.json").write_text(json.dumps(index))
    return directory


def video_chain(spread: float = 0.3, source: Path | None = None, **settings: Any) -> VideoChain:
    """A random video chain whose LoRA is not at its initialisation, 3 frames."""
    chosen = {"steps": 4, "guidance": 2.0, "lora": LoraConfig(rank=2), "frames": FRAMES} | settings
    chosen["source"] = f"random:{source or small_video_architecture()}"
    torch.manual_seed(3)
    chain = VideoChain.load(ModelConfig(family="video", **chosen), CPU)
    fill(chain, spread)
    return chain


def plain_pipeline() -> TextToVideoSDPipeline:
    """The same weights in a pipeline without anything of ours but the UNet's adapters."""
    return TextToVideoSDPipeline(**random_parts(small_video_architecture(), torch.float32))
