"""Small random FLUX.1 pipelines."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.models.config import LoraConfig, ModelConfig
from bench.models.flux import FluxChain
from bench.models.pipeline import load_pipeline
from bench.models.random_weights import architecture
from tests.support.pipelines import CPU, SCRATCH, SMALL_TEXT, SMALL_VAE, change
from tests.support.toys import fill

# In both kinds of blocks: `attn.to_q`; `proj_mlp` in those that hold words and pictures in one stream.
TARGETS = ("attn.to_q", "attn.to_out.0", "attn.add_k_proj", "ff_context.net.2", "proj_mlp")
_TRANSFORMER: dict[str, Any] = {
    "attention_head_dim": 8,
    "axes_dims_rope": [4, 2, 2],
    "in_channels": 16,
    "joint_attention_dim": 40,
    "num_attention_heads": 2,
    "num_layers": 2,
    "num_single_layers": 2,
    "pooled_projection_dim": 16,
}
_T5 = {"d_ff": 32, "d_kv": 8, "d_model": 40, "num_heads": 2, "num_layers": 2}


def small_flux(told: bool = True) -> Path:
    """The configs of FLUX.1-dev with fewer and narrower layers, for a `random:` source.

    told: False for a network that is not told the guidance, with noise levels that are not shifted, as
    FLUX.1-schnell's.
    """
    directory = SCRATCH / f"small-flux-{told}"
    if directory.exists():
        return directory
    shutil.copytree(architecture("flux1"), directory)
    change(directory / "transformer" / "config.json", _TRANSFORMER | {"guidance_embeds": told})
    change(directory / "vae" / "config.json", SMALL_VAE | {"latent_channels": 4})
    change(directory / "text_encoder" / "config.json", SMALL_TEXT)
    change(directory / "text_encoder_2" / "config.json", _T5)
    levels = {"base_image_seq_len": 4, "max_image_seq_len": 64}
    if not told:
        levels = {"use_dynamic_shifting": False, "shift": 1.0}
    change(directory / "scheduler" / "scheduler_config.json", levels)
    return directory


@cache
def flux_dir() -> Path:
    """A pipeline on disk, in diffusers' own format."""
    directory = SCRATCH / "flux"
    config = ModelConfig(family="flux", solver="euler", source=f"random:{small_flux()}")
    load_pipeline(config, torch.float32, "flux").save_pretrained(directory)
    return directory


def flux_chain(spread: float = 0.3, source: Path | None = None, **settings: Any) -> FluxChain:
    """A random chain of 16² pixels whose LoRA is not at its initialisation."""
    chosen = {"steps": 4, "guidance": 3.5, "solver": "flow_sde", "resolution": 16, "t5_tokens": 16}
    chosen |= {"lora": LoraConfig(rank=2, targets=TARGETS), "source": f"random:{source or small_flux()}"}
    torch.manual_seed(3)
    chain = FluxChain.load(ModelConfig(family="flux", **chosen | settings), CPU)
    fill(chain, spread)
    return chain
