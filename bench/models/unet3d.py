"""diffusers' video UNet with what its two-dimensional sibling has: adapters and gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from diffusers import UNet3DConditionModel
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint

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
