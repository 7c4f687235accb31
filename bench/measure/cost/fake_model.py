"""A model and a reward in their true shapes, on fake tensors: no weights, no memory, no arithmetic.

Loaders run as they are; where they would fill a network with random numbers, its weights become fake tensors
(`bench.models.only_shapes`). What the engine computes with numbers of its own (noise scales, kinds of steps)
stays real. Where code asks for the value of a fake tensor, it is told 1, or true. Noise is not drawn.

float16 is what `half` means on a GPU. Attention takes PyTorch's fused CPU kernel, which stores as much as the
fused ones of GPUs do: the output and one number per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.networks import networks_in
from bench.data.need import HasRandom, needs_of
from bench.engine.chain import Chain
from bench.engine.reward import Reward, is_differentiable
from bench.experiment.settings import Choice
from bench.measure.cost.ledger import NETWORK
from bench.models.config import ModelConfig
from bench.models.only_shapes import shapes_only
from bench.models.shapes import local, random_model

aten: Any = torch.ops.aten
CPU = torch.device("cpu")


class Answers(TorchDispatchMode):
    """Tells code that asks for a fake tensor's value that it is 1, or true."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer, or run the operator."""
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            dtype = args[0].dtype
            return True if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


class Faker:
    """Builds networks on fake tensors of one mode."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def blank(self, module: nn.Module) -> None:
        """Replace every parameter and buffer that is not fake yet."""
        known: dict[int, Any] = {}
        for layer in module.modules():
            for name, p in layer._parameters.items():
                if p is not None and not isinstance(p, FakeTensor):
                    if id(p) not in known:
                        known[id(p)] = nn.Parameter(self.like(p), requires_grad=p.requires_grad)
                    layer._parameters[name] = known[id(p)]
            for name, b in layer._buffers.items():
                if b is not None and not isinstance(b, FakeTensor):
                    layer._buffers[name] = self.like(b)

    def like(self, tensor: Tensor) -> Tensor:
        """A fake tensor of the same shape, strides and dtype, on the CPU."""
        with self.mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CPU)

    def normal(
        self, keys: Sequence[tuple[int | str, ...]], shape: Sequence[int], device: torch.device
    ) -> Tensor:
        """A fake tensor [keys, *shape] in place of random numbers."""
        with self.mode:
            return torch.empty(len(keys), *shape, device=device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """A context in which fake tensors can be computed with."""
        with Answers(), patch.object(nn.Module, "_apply", _apply):
            yield

    def chain(self, config: ModelConfig) -> Chain:
        """The model's reverse chain. Raises BenchError for a model whose shapes are not known."""
        with shapes_only(self.blank):
            chain: Chain = registry.load("model", config.family)(random_model(config), CPU)
        for _, network in networks_in(chain):
            self.blank(network)
        adapted: object = chain
        if isinstance(adapted, TakesAdapter):
            adapted.adopt_lora()
        if not all(isinstance(p, FakeTensor) for p in chain.parameters()):
            raise BenchError(f"models of family {config.family} cannot be simulated: --measure measures them")
        return chain

    def reward(self, choice: Choice) -> Reward:
        """A registered reward. Raises BenchError for one whose shapes are not known."""
        cls = registry.load("reward", choice.name)
        config = cls.Config.model_validate(random_reward(choice.name, choice.config))
        with shapes_only(self.blank):
            reward = cls(config, CPU)
        found = [network for _, network in networks_in(reward)]
        for network in found:
            self.blank(network)
        if not found and not is_differentiable(cls, config):
            # It reads the pixels on the CPU, as jpeg does: there are none, and the device takes no part.
            setattr(reward, "score", lambda media, prompts: media.new_zeros(len(prompts)))  # noqa: B010
        return reward


@runtime_checkable
class TakesAdapter(Protocol):
    """A chain that can be told that its adapter's parameters are other ones."""

    def adopt_lora(self) -> None:
        """Take the parameters from the network."""
        ...


def random_reward(name: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A reward's settings with random weights where it can have them, and float16 for `half`."""
    cls, changed = registry.load("reward", name).Config, dict(tree)
    if "terms" in changed:  # a sum of rewards
        terms = [{**t, "config": random_reward(t["name"], t["config"])} for t in changed["terms"]]
        return {**changed, "terms": terms}
    if "dtype" in changed and changed["dtype"] == "half":
        changed["dtype"] = "float16"
    own = cls.model_fields["source"].default if "source" in cls.model_fields else None
    config = cls.model_validate(changed)
    if isinstance(config, HasRandom) and changed["path"] is None and changed["source"] == own:
        changed["source"] = config.random_source
    else:
        local(needs_of(config, f"reward {name}", name))
    return changed


def parts_of(chain: Chain) -> dict[str, list[nn.Module]]:
    """A chain's networks by component: `vae`, `text`, `other`, and the one that is trained; each once, none
    inside another."""
    found: dict[str, list[nn.Module]] = {}
    known: set[int] = set()
    trained = {id(p) for p in chain.parameters()}
    for name, network in networks_in(chain):
        if id(network) not in known:
            part = "text" if "text" in name else "vae" if name == "vae" else "other"
            if any(id(p) in trained for p in network.parameters()):
                part = NETWORK
            found.setdefault(part, []).append(network)
            known.update(id(module) for module in network.modules())
    return found


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` by replacement: it cannot swap the contents of fake tensors."""
    for child in module.children() if recurse else ():
        child._apply(convert)
    with torch.no_grad():
        for name, p in module._parameters.items():
            if p is not None and (new := convert(p)) is not p:
                module._parameters[name] = nn.Parameter(new, requires_grad=p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = convert(b)
    return module
