"""Tiny models with random weights, for tests: they draw nothing, but load and run like real ones.

16×16 pictures, 4×8×8 latents, prompts of at most 16 tokens. Built in about a second, without network.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.data.prompts.emoji import BACKGROUNDS, STYLES, concepts, prompt
from scripts.embedded.export import Prediction, make_scheduler, write_clip, write_pipeline
from scripts.embedded.tokenizer import learn_bpe, special_ids, write_tokenizer

MAX_LENGTH = 16
IMAGE_SIZE = 16
_TEXT_WIDTH = 16
_VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": IMAGE_SIZE,
    "scaling_factor": 0.5,
}
_UNET: dict[str, Any] = {
    "sample_size": IMAGE_SIZE // 2,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D"],  # one level, and attention in its middle alone: few operations
    "up_block_types": ["UpBlock2D"],
    "block_out_channels": [16],
    "layers_per_block": 1,
    "cross_attention_dim": _TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def _write_tokenizer(directory: Path) -> CLIPTokenizer:
    captions = [prompt(c, b, s) for c in concepts() for b in BACKGROUNDS for s in STYLES]
    return write_tokenizer(directory, *learn_bpe(captions, size=1024), max_length=MAX_LENGTH)


def _text_settings(tokenizer: CLIPTokenizer, projection: int) -> dict[str, Any]:
    """Settings of a CLIP text tower that reads `tokenizer`'s ids."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 2 * _TEXT_WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_LENGTH,
        "projection_dim": projection,
        **special_ids(tokenizer),
        "initializer_range": 0.5,  # the default 0.02 makes prompts of so narrow a model indistinguishable
    }


def build_random_pipeline(
    directory: Path,
    *,
    seed: int = 0,
    prediction_type: Prediction = "epsilon",
    set_alpha_to_one: bool = False,
) -> Path:
    """Write a random StableDiffusionPipeline (float32) into `directory` and return it.

    The weights depend only on `seed`; torch's global generator is left as it was.
    """
    directory = Path(directory)
    tokenizer = _write_tokenizer(directory / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae, unet = AutoencoderKL(**_VAE), UNet2DConditionModel(**_UNET)
        text_encoder = CLIPTextModel(CLIPTextConfig(**_text_settings(tokenizer, projection=_TEXT_WIDTH)))
    return write_pipeline(
        directory,
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=directory / "tokenizer",
        scheduler=make_scheduler(prediction_type, set_alpha_to_one),
        dtype=torch.float32,
    )


def build_random_clip(directory: Path, seed: int = 0) -> Path:
    """Write a random CLIPModel (float32, 16×16 pictures) into `directory` and return it."""
    directory = Path(directory)
    tokenizer = _write_tokenizer(directory)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": 4,
        "projection_dim": 8,
        "initializer_range": 0.5,
    }
    config = CLIPConfig(
        text_config=_text_settings(tokenizer, projection=8), vision_config=vision, projection_dim=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    return write_clip(directory, model, tokenizer=directory, dtype=torch.float32)
