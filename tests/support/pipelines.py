"""Image chains on random pipelines, built once per test process."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.random_weights import architecture
from scripts.embedded.export import Prediction
from tests.support.random_init import build_random_pipeline
from tests.support.toys import fill

CPU = torch.device("cpu")

SCRATCH = Path(tempfile.mkdtemp(prefix="bench-tests-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


@cache
def pipeline_dir(prediction_type: Prediction = "epsilon", set_alpha_to_one: bool = False) -> Path:
    """A random pipeline on disk, removed at exit."""
    name = f"{prediction_type}-{set_alpha_to_one}"
    return build_random_pipeline(
        SCRATCH / name, prediction_type=prediction_type, set_alpha_to_one=set_alpha_to_one
    )


def image_chain(
    *,
    prediction_type: Prediction = "epsilon",
    set_alpha_to_one: bool = False,
    spread: float = 0.3,
    **settings: Any,
) -> ImageChain:
    """A random image chain whose LoRA is not at its initialisation (B = 0) but random with std `spread`."""
    path = pipeline_dir(prediction_type, set_alpha_to_one)
    chosen = {"steps": 4, "guidance": 2.0, "lora": LoraConfig(rank=2)} | settings
    torch.manual_seed(3)
    chain = ImageChain.load(ModelConfig(path=path, **chosen), CPU)
    fill(chain, spread)
    return chain


_SMALL_UNET: dict[str, Any] = {
    "_diffusers_version": "0.20.0",  # of older ones diffusers takes any sample_size below 64 for 64
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 8,
}
SMALL_VAE: dict[str, Any] = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 16,
}
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@cache
def small_architecture(name: str) -> Path:
    """The configs of a shipped architecture with fewer and narrower layers, for a `random:` source."""
    source, directory = architecture(name), SCRATCH / f"small-{name}"
    shutil.copytree(source, directory)
    sdxl = (source / "text_encoder_2").is_dir()
    unet = _SMALL_UNET | {"cross_attention_dim": 32 if sdxl else 16}
    if sdxl:
        unet |= {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": [2, 4],
            "transformer_layers_per_block": [1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 16,
        }
        change(directory / "text_encoder_2" / "config.json", SMALL_TEXT | {"projection_dim": 16})
    else:
        unet |= {
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "attention_head_dim": 4,
        }
    change(directory / "unet" / "config.json", unet)
    change(directory / "vae" / "config.json", SMALL_VAE)
    change(directory / "text_encoder" / "config.json", SMALL_TEXT)
    return directory


def change(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def small_chain(name: str, spread: float = 0.3, **settings: Any) -> ImageChain:
    """A chain on a small random pipeline of a shipped architecture's kind."""
    chosen = {"steps": 4, "guidance": 2.0, "lora": LoraConfig(rank=2)} | settings
    torch.manual_seed(3)
    chain = ImageChain.load(ModelConfig(source=f"random:{small_architecture(name)}", **chosen), CPU)
    fill(chain, spread)
    return chain
