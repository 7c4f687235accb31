"""LoRAs in kohya's key style: read by diffusers and here they are the same networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux_lora_to_diffusers,
    _convert_musubi_wan_lora_to_diffusers,
)
from safetensors.torch import save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.config import LoraConfig
from bench.models.lora_files import read_saved
from bench.models.lora_kohya import to_kohya
from tests.models.test_image import diffusers_picture, latents, picture
from tests.support.pipelines import image_chain, pipeline_dir, small_chain
from tests.support.sd3 import sd3_chain

RANK, ALPHA = 2, 6.0


def lora(layers: dict[str, tuple[int, int]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Random tensors of a transformer's LoRA, and its settings; layers: inputs and outputs."""
    generator, tensors = torch.Generator().manual_seed(1), dict[str, Tensor]()
    for name, (inputs, outputs) in layers.items():
        tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"transformer.{name}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator)
    return tensors, {"transformer.r": RANK, "transformer.lora_alpha": ALPHA}


def change_of(tensors: dict[str, Tensor], layer: str, scale: float) -> Tensor:
    """What a layer's weights change by."""
    return scale * tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]


def kohyas_change(tensors: dict[str, Tensor], name: str) -> Tensor:
    """The same of a layer in kohya's style."""
    down, up = tensors[f"lora_unet_{name}.lora_down.weight"], tensors[f"lora_unet_{name}.lora_up.weight"]
    return float(tensors[f"lora_unet_{name}.alpha"]) / len(down) * up @ down


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_of_a_unet_it_gives_the_same_picture_in_plain_diffusers_and_here(kind: str, tmp_path: Path) -> None:
    settings = {"steps": 3, "lora": LoraConfig(rank=RANK, alpha=ALPHA)}
    make: Callable[..., Any] = image_chain if kind == "sd" else lambda **some: small_chain("sdxl", **some)
    chain, again = make(**settings), make(**settings, spread=0.1)
    chain.save_lora(tmp_path / "lora")
    file = tmp_path / "kohya.safetensors"
    save_file(to_kohya("image", *read_saved(tmp_path / "lora")), file)
    x = latents(chain)
    again.load_lora(file)
    torch.testing.assert_close(picture(again, x), picture(chain, x))
    if kind == "sd":
        pipeline = StableDiffusionPipeline.from_pretrained(pipeline_dir(), local_files_only=True)
        pipeline.load_lora_weights(str(file))
        torch.testing.assert_close(
            diffusers_picture(pipeline, chain, x), picture(chain, x), rtol=0, atol=2e-4
        )


@pytest.mark.parametrize("whole", [True, False], ids=["every layer", "some"])
def test_of_flux_diffusers_reads_what_was_there(whole: bool) -> None:
    """Widths are FLUX.1's own, which diffusers' reader is written for. Where a layer of kohya's is trained in
    parts, the others come back without effect."""
    d, double, single = 3072, "transformer_blocks.3", "single_transformer_blocks.7"
    layers = {f"{double}.attn.{name}": (d, d) for name in ("to_q", "to_k", "add_q_proj", "to_out.0")}
    layers |= {f"{single}.attn.to_{name}": (d, d) for name in "qkv"}
    layers |= {f"{double}.ff.net.0.proj": (d, 4 * d), f"{double}.ff.net.2": (4 * d, d)}
    if whole:
        layers |= {f"{double}.attn.{name}": (d, d) for name in ("to_v", "add_k_proj", "add_v_proj")}
        layers |= {f"{single}.proj_mlp": (d, 4 * d), f"{single}.proj_out": (5 * d, d)}
    tensors, settings = lora(layers)
    found = _convert_kohya_flux_lora_to_diffusers(to_kohya("flux", tensors, settings))
    for name in layers:
        layer = f"transformer.{name}"
        torch.testing.assert_close(
            change_of(found, layer, 1.0), change_of(tensors, layer, ALPHA / RANK), rtol=1e-5, atol=1e-3
        )
    others = {key.partition(".lora_")[0] for key in found.keys() - tensors.keys()}
    assert bool(others) != whole
    assert all(bool((change_of(found, layer, 1.0) == 0).all()) for layer in others)


def test_of_wan_diffusers_reads_what_was_there() -> None:
    parts = ("to_q", "to_k", "to_v", "to_out.0")
    layers = {f"blocks.0.attn{n}.{part}": (8, 8) for n in (1, 2) for part in parts}
    layers |= {"blocks.0.ffn.net.0.proj": (8, 32), "blocks.0.ffn.net.2": (32, 8)}
    tensors, settings = lora(layers)
    found = _convert_musubi_wan_lora_to_diffusers(to_kohya("wan", tensors, settings))
    assert found.keys() == tensors.keys()
    for name in layers:
        layer = f"transformer.{name}"
        torch.testing.assert_close(change_of(found, layer, 1.0), change_of(tensors, layer, ALPHA / RANK))


def test_of_stable_diffusion_3_it_changes_the_same_under_the_names_of_sd_scripts() -> None:
    chain = sd3_chain(lora=LoraConfig(rank=RANK, alpha=ALPHA, targets=("attn.to_q", "attn.to_v", "net.2")))
    names = [name for name, _ in chain.network.named_modules() if name.endswith(".lora_A.default")]
    layers = {
        name.removesuffix(".lora_A.default"): (module.in_features, module.base_layer.out_features)
        for name, module in (
            (n, chain.network.get_submodule(n.removesuffix(".lora_A.default"))) for n in names
        )
    }
    tensors, settings = lora(layers)
    found, scale = to_kohya("sd3", tensors, settings), ALPHA / RANK
    assert {key.partition(".")[0] for key in found} == {
        *(f"lora_unet_joint_blocks_{n}_x_block_{part}" for n in (0, 1) for part in ("attn_qkv", "mlp_fc2")),
        "lora_unet_joint_blocks_0_context_block_mlp_fc2",  # the last block's words end in its attention
    }
    width = layers["transformer_blocks.1.attn.to_q"][1]
    q, k, v = kohyas_change(found, "joint_blocks_1_x_block_attn_qkv").split(width)
    torch.testing.assert_close(q, change_of(tensors, "transformer.transformer_blocks.1.attn.to_q", scale))
    assert bool((k == 0).all())
    torch.testing.assert_close(v, change_of(tensors, "transformer.transformer_blocks.1.attn.to_v", scale))
    torch.testing.assert_close(
        kohyas_change(found, "joint_blocks_0_context_block_mlp_fc2"),
        change_of(tensors, "transformer.transformer_blocks.0.ff_context.net.2", scale),
    )


@pytest.mark.parametrize(
    ("family", "layer", "message"),
    [
        ("video", "down_blocks.0.temp_attentions.0.proj_in", "no names for models of family video"),
        ("sd3", "transformer_blocks.0.norm1.linear", "no name for transformer_blocks.0.norm1.linear"),
        ("flux", "x_embedder", "no name for x_embedder"),
    ],
)
def test_what_has_no_name_there_is_refused(family: str, layer: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        to_kohya(family, *lora({layer: (4, 4)}))
