"""The trainable LoRA of a network of diffusers, and its perturbation sample by sample.

A perturbed batch is one forward: row b of every adapted layer computes (B + ΔB_b)(A + ΔA_b) x_b, two small
batched matrix products in place of the two products of lora_A and lora_B. No parameter is touched, so none
has to be restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peft
import torch
from torch import Tensor, nn

from bench.base.errors import BenchError, did_you_mean
from bench.models.config import LoraConfig

ADAPTER = "default"
ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # kinds of layers that peft puts a LoRA on


def add_lora(network: Any, config: LoraConfig) -> None:
    """Freeze the network and add a fresh float32 LoRA (A normal with std 1 / rank, B zero; global torch
    seed). Raises BenchError if the settings do not fit the network."""
    network.requires_grad_(False)
    _check_fits(network, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.scale * config.rank,  # type: ignore[arg-type]  (only divided by the rank)
        init_lora_weights="gaussian",
        target_modules=list(config.targets),
    )
    network.add_adapter(settings, ADAPTER)
    for p in lora_parameters(network):
        p.data = p.data.float()


def _check_fits(network: nn.Module, config: LoraConfig) -> None:
    """Raises BenchError for targets that are no layers, or none of a kind that is adapted, and for a rank
    above that of every adapted layer, which would only cost."""
    layers = {f".{name}": module for name, module in network.named_modules()}
    widest = 0
    for target in config.targets:
        found = {name: module for name, module in layers.items() if name.endswith(f".{target}")}
        other = [name for name, module in found.items() if not isinstance(module, ADAPTED)]
        if not found or other:
            known = sorted({_ending(name) for name, module in layers.items() if isinstance(module, ADAPTED)})
            wrong = f"no layer of the network is called '{target}'.{did_you_mean(target, known)}"
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


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters in the network's own order."""
    return [p for name, p in network.named_parameters() if ".lora_" in name]


class DirectLora:
    """The LoRA of one linear layer, run as peft runs it without asking each time which adapters there are.

    For the one adapter of `add_lora`, unmerged: the same operations, so the same numbers to the last bit.
    While `delta` is set, row b of a batch runs with changed factors; the gradient is taken there.
    """

    def __init__(self, layer: Any) -> None:
        """layer: peft's."""
        self._layer, self._base, self._scale = layer, layer.base_layer, layer.scaling[ADAPTER]
        self.down: nn.Linear = layer.lora_A[ADAPTER]
        self.up: nn.Linear = layer.lora_B[ADAPTER]
        self.delta: tuple[Tensor, Tensor] | None = None  # of down's and up's weights, [samples, out, in]
        self.copies = 1  # how often the samples stand in the input

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output, in its own dtype."""
        out = self._base(x)
        if self._layer.disable_adapters:
            return out
        x = x.to(self.down.weight.dtype)
        change = self.up(self.down(x)) if self.delta is None else self._changed(x, *self.delta)
        return (out + (change if self._scale == 1 else change * self._scale)).to(out.dtype)

    def _changed(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """(B + ΔB_b)(A + ΔA_b) x_b: two batched products."""
        samples = self.copies * len(down)
        if x.shape[0] % samples:
            raise ValueError(f"{x.shape[0]} rows are not a multiple of {samples} samples")
        rows = x.reshape(samples, -1, x.shape[-1])  # a sample's group and tokens together
        inner = torch.bmm(rows, self._copied(self.down.weight + down).mT)
        return torch.bmm(inner, self._copied(self.up.weight + up).mT).reshape(*x.shape[:-1], -1)

    def _copied(self, weights: Tensor) -> Tensor:
        """[samples, …] → [copies · samples, …]: of one layer, while it runs."""
        return weights if self.copies == 1 else weights.expand(self.copies, *weights.shape).flatten(0, 1)


def call_directly(network: nn.Module) -> list[DirectLora]:
    """Have every linear layer's LoRA run by a `DirectLora`; returns these, in the network's own order.

    A layer that an earlier LoRA changed and this one does not is left to peft.
    """
    found: list[DirectLora] = []
    for layer in network.modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            vars(layer).pop("forward", None)
            if ADAPTER in layer.lora_A:
                found.append(DirectLora(layer))
                layer.forward = found[-1]  # type: ignore[method-assign]
    return found


def check_perturbable(network: nn.Module) -> None:
    """Raise BenchError unless all of the LoRA is of linear layers, which alone are perturbed per sample."""
    for name, module in network.named_modules():
        if ".lora_" not in name or not any(True for _ in module.parameters(recurse=False)):
            continue
        if not isinstance(module, nn.Linear) or module.bias is not None:
            raise BenchError(
                f"{name}: parameters of {type(module).__name__} layers cannot be perturbed per sample; "
                "restrict model.lora.targets to linear layers for methods with zeroth-order steps"
            )


@contextmanager
def perturbed(layers: Sequence[DirectLora], delta: Tensor, copies: int = 1) -> Iterator[None]:
    """Within the context, row b of a batch runs with LoRA + delta[b].

    layers: all of the network's, from `call_directly`. delta: [B, d], flat in the order of
    `lora_parameters`. copies: how often the batch stands in the network's input, one after the other
    (guidance: 2). A layer's input has its rows in the order [copies, B, group]: frames fold into the batch in
    a video's spatial layers, pixels in its temporal ones, and images have a group of 1. So row r belongs to
    sample (r div group) mod B.
    """
    weights = [weight for layer in layers for weight in (layer.down.weight, layer.up.weight)]
    parts = delta.split([weight.numel() for weight in weights], dim=1)
    shaped = [part.view(-1, *weight.shape) for part, weight in zip(parts, weights, strict=True)]
    try:
        for layer, down, up in zip(layers, shaped[::2], shaped[1::2], strict=True):
            layer.delta, layer.copies = (down, up), copies
        yield
    finally:
        for layer in layers:
            layer.delta, layer.copies = None, 1
