"""The trainable LoRA of a diffusers UNet, and its perturbation sample by sample.

A perturbed batch is one forward: row b of every adapted layer computes (B + ΔB_b)(A + ΔA_b) x_b, two small
batched matrix products added to the outputs of lora_A and lora_B. No parameter is touched, so none has to be
restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import peft
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from bench.base.errors import BenchError, did_you_mean
from bench.models.config import LoraConfig
from bench.models.unet3d import Unet3D

ADAPTER = "default"
ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # kinds of layers that peft puts a LoRA on


def add_lora(unet: UNet2DConditionModel | Unet3D, config: LoraConfig) -> None:
    """Freeze the network and add a fresh float32 LoRA (A normal with std 1 / rank, B zero; global torch
    seed). Raises BenchError if the settings do not fit the network."""
    unet.requires_grad_(False)
    _check_fits(unet, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.scale * config.rank,  # type: ignore[arg-type]  (only divided by the rank)
        init_lora_weights="gaussian",
        target_modules=list(config.targets),
    )
    unet.add_adapter(settings, ADAPTER)
    for p in lora_parameters(unet):
        p.data = p.data.float()


def _check_fits(unet: nn.Module, config: LoraConfig) -> None:
    """Raises BenchError for targets that are no layers, or none of a kind that is adapted, and for a rank
    above that of every adapted layer, which would only cost."""
    layers = {f".{name}": module for name, module in unet.named_modules()}
    widest = 0
    for target in config.targets:
        found = {name: module for name, module in layers.items() if name.endswith(f".{target}")}
        other = [name for name, module in found.items() if not isinstance(module, ADAPTED)]
        if not found or other:
            known = sorted({_ending(name) for name, module in layers.items() if isinstance(module, ADAPTED)})
            wrong = f"no layer of the UNet is called '{target}'.{did_you_mean(target, known)}"
            if other:
                wrong = f"{other[0][1:]} is of class {type(found[other[0]]).__name__}, which takes no LoRA."
            raise BenchError(f"model.lora.targets: {wrong} Layers that take one: {', '.join(known)}")
        weights = [module.weight for module in found.values() if isinstance(module, ADAPTED)]
        widest = max(widest, *(min(len(w), w[0].numel()) for w in weights))
    if config.rank > widest:
        raise BenchError(
            f"model.lora.rank: {config.rank} is more than any change of these layers has: at most {widest}"
        )


def _ending(name: str) -> str:
    """What a layer is called in its block: `to_q`, or `to_out.0` where it is one of a list."""
    *_, block, last = name.split(".")
    return f"{block}.{last}" if last.isdigit() else last


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters in the network's own order."""
    return [p for name, p in unet.named_parameters() if ".lora_" in name]


def perturbable(unet: nn.Module) -> list[nn.Linear]:
    """The LoRA's layers in the order of `lora_parameters`. Raises BenchError if one is not linear."""
    layers: list[nn.Linear] = []
    for name, module in unet.named_modules():
        if ".lora_" not in name or not any(True for _ in module.parameters(recurse=False)):
            continue
        if not isinstance(module, nn.Linear) or module.bias is not None:
            raise BenchError(
                f"{name}: parameters of {type(module).__name__} layers cannot be perturbed per sample; "
                "restrict model.lora.targets to linear layers for methods with zeroth-order steps"
            )
        layers.append(module)
    return layers


def call_directly(unet: nn.Module) -> None:
    """Run the LoRA of linear layers as peft does, without asking each time which adapters there are.

    For the one adapter of `add_lora`, unmerged. The same operations, so the same numbers to the last bit.
    """
    for layer in unet.modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            layer.forward = _direct(layer)  # type: ignore[method-assign]


def _direct(layer: Any) -> Callable[[Tensor], Tensor]:
    base, scale = layer.base_layer, layer.scaling[ADAPTER]
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]

    def forward(x: Tensor) -> Tensor:
        out = base(x)
        if layer.disable_adapters:
            return out
        change = up(down(x.to(down.weight.dtype)))
        return (out + (change if scale == 1 else change * scale)).to(out.dtype)

    return forward


@contextmanager
def perturbed(layers: list[nn.Linear], delta: Tensor, copies: int = 1) -> Iterator[None]:
    """Within the context, row b of a batch runs with LoRA + delta[b].

    layers: from `perturbable`. delta: [B, d], flat in the order of `lora_parameters`. copies: how often the
    batch stands in the network's input, one after the other (guidance: 2). A layer's input has its rows in
    the order [copies, B, group]: frames fold into the batch in a video's spatial layers, pixels in its
    temporal ones, and images have a group of 1. So row r belongs to sample (r div group) mod B.
    """
    parts = delta.split([layer.weight.numel() for layer in layers], dim=1)
    with ExitStack() as stack:
        for layer, part in zip(layers, parts, strict=True):
            weight = part.reshape(-1, *layer.weight.shape)
            stack.callback(layer.register_forward_hook(_added_product(weight, copies)).remove)
        yield


def _added_product(delta: Tensor, copies: int) -> Any:
    """A forward hook that adds x_r delta[(r div group) mod B]ᵀ to the layer's output; delta [B, out, in]."""
    samples = copies * delta.shape[0]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        if x.shape[0] % samples:
            raise ValueError(f"{x.shape[0]} rows are not a multiple of {copies} · {delta.shape[0]} samples")
        rows = x.reshape(samples, -1, x.shape[-1])  # a sample's group and tokens together
        weight = delta if copies == 1 else delta.repeat(copies, 1, 1)
        return output + torch.bmm(rows, weight.to(rows.dtype).mT).reshape(output.shape)

    return hook
