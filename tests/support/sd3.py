"""Small random Stable Diffusion 3 pipelines."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.models.config import LoraConfig, ModelConfig
from bench.models.pipeline import load_pipeline
from bench.models.random_weights import architecture
from bench.models.sd3 import Sd3Chain
from tests.support.pipelines import CPU, SCRATCH, SMALL_TEXT, SMALL_VAE, change
from tests.support.toys import fill

TARGETS = ("attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.to_add_out")
_TRANSFORMER: dict[str, Any] = {
    "attention_head_dim": 8,
    "caption_projection_dim": 16,
    "dual_attention_layers": [0],
    "in_channels": 4,
    "joint_attention_dim": 40,
    "num_attention_heads": 2,
    "num_layers": 2,
    "out_channels": 4,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 12,
    "sample_size": 8,
}
_T5 = {"d_ff": 32, "d_kv": 8, "d_model": 40, "num_heads": 2, "num_layers": 2}


def small_sd3(t5: bool = True, dynamic: bool = False) -> Path:
    """The configs of SD 3.5 medium with fewer and narrower layers, for a `random:` source.

    dynamic: noise levels that are shifted by the picture's size.
    """
    directory = SCRATCH / f"small-sd3-{t5}-{dynamic}"
    if directory.exists():  # asked for with other keywords
        return directory
    shutil.copytree(architecture("sd35"), directory)
    change(directory / "transformer" / "config.json", _TRANSFORMER)
    change(directory / "vae" / "config.json", SMALL_VAE | {"latent_channels": 4})
    for name in ("text_encoder", "text_encoder_2"):
        change(directory / name / "config.json", SMALL_TEXT | {"projection_dim": 16})
    change(directory / "text_encoder_3" / "config.json", _T5)
    if not t5:
        shutil.rmtree(directory / "text_encoder_3")
        change(directory / "model_index.json", {"text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    if dynamic:
        levels = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
        change(directory / "scheduler" / "scheduler_config.json", levels)
    return directory


@cache
def sd3_dir(t5: bool = True) -> Path:
    """A pipeline on disk, in diffusers' own format."""
    directory = SCRATCH / f"sd3-{t5}"
    config = ModelConfig(family="sd3", solver="euler", source=f"random:{small_sd3(t5)}")
    load_pipeline(config, torch.float32, "sd3").save_pretrained(directory)
    return directory


def sd3_chain(spread: float = 0.3, source: Path | None = None, **settings: Any) -> Sd3Chain:
    """A random chain whose LoRA is not at its initialisation."""
    chosen = {"steps": 4, "guidance": 2.0, "solver": "flow_sde", "lora": LoraConfig(rank=2, targets=TARGETS)}
    chosen |= {"source": f"random:{source or small_sd3()}"} | settings
    torch.manual_seed(3)
    chain = Sd3Chain.load(ModelConfig(family="sd3", **chosen), CPU)
    fill(chain, spread)
    return chain
