"""Small random Wan pipelines."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.models.config import LoraConfig, ModelConfig
from bench.models.pipeline import load_pipeline
from bench.models.random_weights import architecture
from bench.models.wan import WanChain
from tests.support.pipelines import CPU, SCRATCH, change
from tests.support.toys import fill

TARGETS = ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ffn.net.2")  # of pictures, and of words
FRAMES = 9  # three of latents
_TRANSFORMER: dict[str, Any] = {
    "attention_head_dim": 12,
    "ffn_dim": 32,
    "freq_dim": 16,
    "in_channels": 4,
    "num_attention_heads": 2,
    "num_layers": 2,
    "out_channels": 4,
    "text_dim": 40,
}
_VAE: dict[str, Any] = {
    "base_dim": 4,
    "latents_mean": [-0.3, 0.2, 0.0, 0.1],
    "latents_std": [1.2, 0.8, 1.5, 1.0],
    "num_res_blocks": 1,
    "z_dim": 4,
}
_T5 = {"d_ff": 32, "d_kv": 8, "d_model": 40, "num_heads": 2, "num_layers": 2, "vocab_size": 32128}


@cache
def small_wan() -> Path:
    """The configs of Wan 2.1 with fewer and narrower layers, for a `random:` source."""
    directory = SCRATCH / "small-wan"
    shutil.copytree(architecture("wan21-1.3b"), directory)
    for name, settings in {"transformer": _TRANSFORMER, "vae": _VAE, "text_encoder": _T5}.items():
        change(directory / name / "config.json", settings)
    return directory


@cache
def wan_dir() -> Path:
    """A pipeline on disk, in diffusers' own format."""
    directory = SCRATCH / "wan"
    config = ModelConfig(family="wan", solver="euler", frames=FRAMES, source=f"random:{small_wan()}")
    load_pipeline(config, torch.float32, "wan").save_pretrained(directory)
    return directory


def wan_chain(spread: float = 0.3, source: Path | None = None, **settings: Any) -> WanChain:
    """A random chain of 16×32 pixels whose LoRA is not at its initialisation."""
    chosen = {"steps": 4, "guidance": 2.0, "solver": "flow_sde", "resolution": (16, 32), "frames": FRAMES}
    chosen |= {"t5_tokens": 16, "lora": LoraConfig(rank=2, targets=TARGETS)}
    chosen["source"] = f"random:{source or small_wan()}"
    torch.manual_seed(3)
    chain = WanChain.load(ModelConfig(family="wan", **chosen | settings), CPU)
    fill(chain, spread)
    return chain
