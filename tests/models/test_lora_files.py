"""LoRAs from other programs: loaded here, they are the network that diffusers makes of them."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.pipeline import load_pipeline
from tests.models.test_image import diffusers_picture, latents, picture
from tests.support.pipelines import image_chain, pipeline_dir, small_architecture, small_chain

pytestmark = pytest.mark.slow

FILE = "pytorch_lora_weights.safetensors"


def foreign(targets: list[str], rank: int = 3, alpha: int = 5) -> StableDiffusionPipeline:
    """Plain diffusers with a peft LoRA of its own, its parameters random."""
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_dir(), local_files_only=True)
    pipeline.unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    generator = torch.Generator().manual_seed(2)
    for name, p in pipeline.unet.named_parameters():
        if "lora_" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return pipeline


def layers(pipeline: StableDiffusionPipeline) -> dict[str, Any]:
    """The adapter's tensors."""
    return {k: v.contiguous() for k, v in get_peft_model_state_dict(pipeline.unet).items()}


def kohya(tensors: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The same under kohya's names, with an alpha per layer."""
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        layer, _, part = key.removesuffix(".weight").rpartition(".")
        name = "lora_unet_" + layer.replace(".", "_")
        renamed[f"{name}.{'lora_down' if part == 'lora_A' else 'lora_up'}.weight"] = value
        renamed[f"{name}.alpha"] = torch.tensor(alpha)
    return renamed


def write(style: str, pipeline: StableDiffusionPipeline, directory: Path) -> None:
    """Save the pipeline's LoRA as a program of that style would."""
    directory.mkdir(exist_ok=True)
    if style == "with metadata":
        config = pipeline.unet.peft_config["default"].to_dict()
        pipeline.save_lora_weights(
            directory, unet_lora_layers=layers(pipeline), unet_lora_adapter_metadata=config
        )
    elif style == "without metadata":  # alpha is then the rank
        pipeline.save_lora_weights(directory, unet_lora_layers=layers(pipeline))
    elif style == "unet alone":
        pipeline.unet.save_lora_adapter(directory)
    elif style == "peft":
        save_file(
            {f"base_model.model.{k}": v for k, v in layers(pipeline).items()},
            directory / "adapter_model.safetensors",
        )
        config = pipeline.unet.peft_config["default"].to_dict() | {"target_modules": ["to_q", "to_v"]}
        (directory / "adapter_config.json").write_text(json.dumps(config, default=str))
    else:
        save_file(kohya(layers(pipeline), alpha=5.0), directory / FILE)


@pytest.mark.parametrize("style", ["with metadata", "without metadata", "unet alone", "peft", "kohya"])
def test_foreign_lora_of_another_rank_alpha_and_targets_is_the_same_network_here(
    style: str, tmp_path: Path
) -> None:
    other = foreign(["to_q", "to_v"], alpha=3 if style == "without metadata" else 5)
    write(style, other, tmp_path / "lora")
    chain, base = image_chain(steps=3), image_chain(steps=3, spread=0.0)
    chain.load_lora(tmp_path / "lora")
    x = latents(chain)
    found, expected = picture(chain, x), diffusers_picture(other, chain, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert float((found - picture(base, x)).abs().max()) > 0.01
    assert all(p.requires_grad and p.dtype == torch.float32 for p in chain.parameters())


def test_alpha_of_each_layer_is_its_own(tmp_path: Path) -> None:
    """A layer's alpha times 6 is its lora_up times 6. (diffusers 0.42 overlooks such an alpha.)"""
    tensors = kohya(layers(foreign(["to_q", "to_v"])), alpha=5.0)
    layer = next(key for key in tensors if key.endswith("attn2_to_v.alpha")).removesuffix(".alpha")
    up = f"{layer}.lora_up.weight"
    changes = ({}, {f"{layer}.alpha": torch.tensor(30.0)}, {up: 6 * tensors[up]})
    pictures = []
    for n, change in enumerate(changes):
        directory = tmp_path / str(n)
        directory.mkdir()
        save_file(tensors | change, directory / FILE)
        chain = image_chain(steps=3)
        chain.load_lora(directory)
        pictures.append(picture(chain, latents(chain)))
    assert float((pictures[0] - pictures[1]).abs().max()) > 1e-3
    torch.testing.assert_close(pictures[1], pictures[2], rtol=0, atol=2e-4)


def test_convolutions_load_and_train(tmp_path: Path) -> None:
    other = foreign(["to_q", "conv1"])
    write("with metadata", other, tmp_path / "lora")
    chain = image_chain(steps=3)
    chain.load_lora(tmp_path / "lora")
    x = latents(chain)
    torch.testing.assert_close(picture(chain, x), diffusers_picture(other, chain, x), rtol=0, atol=2e-4)
    assert any(p.ndim == 4 for p in chain.parameters())


def test_saved_sdxl_lora_gives_the_same_picture_in_plain_diffusers(tmp_path: Path) -> None:
    chain = small_chain("sdxl", steps=3, lora=LoraConfig(rank=2, alpha=6))
    chain.save_lora(tmp_path / "lora")
    config = ModelConfig(source=f"random:{small_architecture('sdxl')}")
    pipeline: Any = load_pipeline(config, torch.float32)
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    pipeline.scheduler = ddim(chain)
    x = latents(chain)
    torch.testing.assert_close(picture(chain, x), diffusers_picture(pipeline, chain, x), rtol=0, atol=5e-4)
    again = small_chain("sdxl", steps=3, spread=0.0)
    again.load_lora(tmp_path / "lora")
    assert torch.equal(picture(again, x), picture(chain, x))


def ddim(chain: ImageChain) -> Any:
    """diffusers' DDIM at the chain's settings."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(chain.pipeline.scheduler.config)


def test_lora_loaded_into_a_half_precision_network_keeps_every_bit(tmp_path: Path) -> None:
    saved = image_chain(steps=2)
    saved.save_lora(tmp_path / "lora")
    chain = image_chain(steps=2, dtype="half")
    chain.load_lora(tmp_path / "lora")
    assert all(torch.equal(a, b) for a, b in zip(chain.parameters(), saved.parameters(), strict=True))


def add(directory: Path, more: dict[str, Tensor]) -> None:
    """More tensors in a LoRA file."""
    save_file(load_file(directory / FILE) | more, directory / FILE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"text_encoder.q_proj.lora_A.weight": torch.ones(2, 16)},
            r"also changes the text encoder \(1 tensors\)",
        ),
        ({"unet.mid_block.to_q.lora_magnitude_vector": torch.ones(2)}, "no plain LoRA"),
        ({"unet.no_block.to_q.lora_A.weight": torch.ones(3, 16)}, "does not fit the model's network"),
    ],
    ids=["text encoder", "DoRA", "another model's layer"],
)
def test_lora_with_parts_that_have_no_place_here_says_so(
    more: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    write("without metadata", foreign(["to_q"]), tmp_path)
    add(tmp_path, more)
    with pytest.raises(BenchError, match=message):
        image_chain(steps=2).load_lora(tmp_path)


def test_lora_of_a_wider_network_does_not_fit(tmp_path: Path) -> None:
    small_chain("sdxl", steps=2).save_lora(tmp_path)
    with pytest.raises(BenchError, match="does not fit the model's network"):
        image_chain(steps=2).load_lora(tmp_path)


@pytest.mark.silent
@pytest.mark.parametrize("kind", ["diffusers", "peft"])
def test_truncated_lora_file_is_one_message(kind: str, tmp_path: Path) -> None:
    write("without metadata", foreign(["to_q"]), tmp_path)
    file = tmp_path / FILE
    if kind == "peft":
        file = file.rename(tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text("{}")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BenchError, match="no whole safetensors file"):
        image_chain(steps=2).load_lora(tmp_path)
