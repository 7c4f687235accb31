"""What half precision costs gradients and pairs of perturbations (docs/log.md, docs/estimators.md).

    python -m scripts.measure_half gradients
    python -m scripts.measure_half pairs

`gradients`: one step of the embedded model is pulled back with a cotangent of a given root mean square.
Printed is the distance of the LoRA's gradient to float32's, over the length of float32's; `plain` is float16
without the scaling of `bench.engine.float16`.

`pairs`: steps at four places of the chain, at the LoRA's initialisation. A pair runs with θ + s z and
θ - s z; what it measures is the difference of its two means. Printed is the distance of that difference to
float32's, over the length of float32's: rounding noise over signal. `one` is the same for a single
perturbation, the mean at θ + s z less that at θ.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from bench.engine.chain import State
from bench.engine.float16 import Product, Through, network
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from bench.run.load import load_chain

CPU = torch.device("cpu")
HALF = ("float16", "bfloat16")
SIZES = (1.0, 1e-3, 1e-4, 1e-5, 1e-6)
SCALES = (1e-1, 1e-2, 1e-3, 1e-4)
PLACES = (2, 7, 12, 17)
SAMPLES = 4
PROMPTS = ["a red apple on a blue background"] * SAMPLES


def loaded(dtype: str) -> ImageChain:
    """The embedded model at 20 steps; the same LoRA each time."""
    torch.manual_seed(0)
    settings = {"source": "embedded:sd", "steps": 20, "guidance": 1.0, "dtype": dtype}
    chain = load_chain(ModelConfig.model_validate(settings), CPU)
    assert isinstance(chain, ImageChain)
    return chain


def off(found: list[Tensor], exact: list[Tensor]) -> float:
    """The distance to what is exact, over its length."""
    distance = sum(float((f - e).square().sum()) for f, e in zip(found, exact, strict=True))
    return (distance / sum(float(e.square().sum()) for e in exact)) ** 0.5


def gradient(chain: ImageChain, size: float, through: Through) -> list[Tensor]:
    """The LoRA's, of the middle step with a random cotangent."""
    generator = torch.Generator().manual_seed(1)
    x, cotangent = torch.randn(2, SAMPLES, *chain.latent_shape, generator=generator)
    cond = chain.condition(PROMPTS)

    def product() -> Product:
        mean = chain.transition(State(x), 10, cond, torch.zeros(SAMPLES)).mean
        return [mean], chain.parameters(), [size * cotangent]

    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(through.vjp(product), chain.parameters(), strict=True)
    ]


@torch.no_grad()
def means(chain: ImageChain, scale: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """By place, the means [SAMPLES, …] at θ + s z, θ and θ - s z."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, *chain.latent_shape, generator=generator)
    z = torch.randn(SAMPLES, sum(p.numel() for p in chain.parameters()), generator=generator)
    cond = chain.condition(PROMPTS)

    def at(i: int, factor: float) -> Tensor:
        with chain.perturbed(factor * scale * z):
            return chain.transition(State(x), i, cond, torch.zeros(SAMPLES)).mean

    return [(at(i, 1.0), at(i, 0.0), at(i, -1.0)) for i in PLACES]


def gradients() -> None:
    """Print the first table."""
    full, *halves = (loaded(dtype) for dtype in ("float32", *HALF))
    print("cotangent     plain   float16  bfloat16")
    for size in SIZES:
        exact = gradient(full, size, network(full))
        found = [gradient(halves[0], size, Through("the network", "model.dtype", float16=False))]
        found += [gradient(chain, size, network(chain)) for chain in halves]
        print(f"{size:9.0e} " + " ".join(f"{off(one, exact):9.2g}" for one in found), flush=True)


def pairs() -> None:
    """Print the second table."""
    full, *halves = (loaded(dtype) for dtype in ("float32", *HALF))
    print("dtype           s      pair       one")
    for scale in SCALES:
        exact = means(full, scale)
        for dtype, chain in zip(HALF, halves, strict=True):
            found = means(chain, scale)
            pair = off([up - down for up, _, down in found], [up - down for up, _, down in exact])
            one = off([up - plain for up, plain, _ in found], [up - plain for up, plain, _ in exact])
            print(f"{dtype:9} {scale:7.0e} {pair:9.2g} {one:9.2g}", flush=True)


if __name__ == "__main__":
    {"gradients": gradients, "pairs": pairs}[sys.argv[1]]()
