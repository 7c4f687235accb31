"""diffusers' video UNet with what its two-dimensional sibling has, and with what VideoCrafter2's has.

That is adapters and gradient checkpointing; and an embedding of the frames per second, which is added to the
timestep's (Chen et al. 2024, arXiv:2401.09047; files in diffusers' format call it `fps_embedding`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from diffusers import UNet3DConditionModel
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.base.errors import BenchError
from bench.base.whole import check_whole

FPS = "fps_embedding"
LAYERS = (ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel)


@final
class Unet3D(UNet3DConditionModel, PeftAdapterMixin):
    """The same network and the same files; LoRAs can be added, loaded and saved.

    diffusers 0.42 gives adapters to its UNet2DConditionModel alone, so that its own `load_lora_weights` needs
    a pipeline with this UNet (docs/models.md).
    """


def checkpoint_layers(unet: nn.Module) -> None:
    """Keep no activations inside the layers of a video UNet: the backward pass computes them again.

    diffusers' own checkpointing has no effect on these blocks. Layers are as fine as in its image UNets:
    residual blocks and transformers, here the temporal ones, too.
    """
    for module in unet.modules():
        if isinstance(module, LAYERS):
            setattr(module, "forward", _again(module.forward))  # noqa: B010


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run


def add_fps_embedding(unet: Unet3D) -> nn.Module:
    """Give the UNet an embedding of frames per second, without its numbers yet. Returns it."""
    width: int = unet.config["block_out_channels"][0]
    embedding = TimestepEmbedding(width, 4 * width)
    unet.add_module(FPS, embedding)
    return embedding


def read_fps_embedding(unet: Unet3D, directory: Path) -> None:
    """Give the UNet the embedding of frames per second in its weight files, if they have one. Raises
    BenchError if they have it in part."""
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    for file in files:
        read = load_file if file.suffix == ".safetensors" else _read_bin
        found = {key: value for key, value in read(file).items() if key.startswith(f"{FPS}.")}
        if found:
            embedding = add_fps_embedding(unet).to(unet.dtype)
            shapes = {f"{FPS}.{key}": value.shape for key, value in embedding.state_dict().items()}
            wrong = [
                (k, found[k].shape, shapes[k])
                for k in shapes.keys() & found.keys()
                if found[k].shape != shapes[k]
            ]
            info = {"missing_keys": shapes.keys() - found.keys(), "mismatched_keys": wrong}
            check_whole(
                info | {"unexpected_keys": found.keys() - shapes.keys()}, str(file), "UNet3DConditionModel"
            )
            embedding.load_state_dict(
                {key.removeprefix(f"{FPS}."): value for key, value in found.items()}, strict=False
            )
            return


def _read_bin(file: Path) -> dict[str, Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)


def tell_fps(unet: Unet3D, fps: int | None) -> None:
    """Have the UNet add the embedding of `fps` to the timestep's. Raises BenchError unless both or none are
    there."""
    embedding = getattr(unet, FPS, None)
    if (embedding is None) != (fps is None):
        raise BenchError(
            "model.fps: this UNet is told frames per second, so they must be set (VideoCrafter2: 24)"
            if fps is None
            else "model.fps: this UNet is not told frames per second: --set model.fps=null"
        )
    if embedding is None or fps is None:
        return
    project = Timesteps(unet.config["block_out_channels"][0], True, 0)
    unet.time_embedding.register_buffer("fps", project(torch.tensor([fps])), persistent=False)

    def add(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + embedding(module.fps.to(output.dtype))

    unet.time_embedding.register_forward_hook(add)
