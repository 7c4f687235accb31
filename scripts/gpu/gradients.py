"""Gradients in half precision against single precision, and what a step takes of time and memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.base.units import GIB
from bench.engine.batch import Batch
from bench.engine.chain import Chain
from bench.engine.reward import Reward
from bench.experiment.choices import load_reward
from bench.experiment.settings import CellConfig
from bench.measure.cost.fake_model import parts_of
from bench.measure.cost.measure import measure
from bench.measure.cost.simulate import Simulator
from bench.measure.cost.step import PROMPT, subject_of, trained
from bench.run.load import load_chain
from scripts.gpu.row import Place, Row

TERMS = {"full_bp": "FO", "ddpo": "HO", "zo-antithetic": "ZO", "rlr-h1": "all"}  # method → its terms
SETTINGS = (
    "model.steps=3",
    "train.prompts_per_step=2",
    "train.samples_per_prompt=2",
    "train.micro_batch=2",
    "train.reward_chunk=1",
)
DTYPES = ("float32", "bfloat16", "float16")
SMALL = ("full_bp", "rlr-h1")
FAR = 0.05  # how far off float16 may be where there is no bfloat16 to compare with
PREDICTED = 0.15  # how far measured peak memory may be from the simulated one


def precision(place: Place) -> Iterator[Row]:
    """How far each method's first gradient is from that in single precision.

    The pictures differ, too, and of random weights much, so no error is too large by itself. But float16
    rounds eight times as finely as bfloat16: where its gradient is farther off, numbers were lost below its
    range or above. Not so for pairs of perturbations, of which either rounds away most.
    """
    found = dict[tuple[str, str], Tensor]()
    exact: Chain | None = None
    dtypes = [dtype for dtype in DTYPES if dtype != "bfloat16" or place.bfloat16]
    for dtype in dtypes:
        chosen = (*SETTINGS, f"model.dtype={dtype}")
        config = place.cell("full_bp", *chosen)
        chain = load_chain(config.model.config, place.device)
        exact = exact or chain
        _weights_of(exact, chain)
        reward = load_reward(trained(config).reward, place.device)
        for method in _terms(place):
            found[method, dtype] = _gradient(place.cell(method, *chosen), chain, reward)
        del chain
        free()
    for method, terms in _terms(place).items():
        single = found[method, "float32"]
        off = {dtype: float((found[method, dtype] - single).norm() / single.norm()) for dtype in dtypes[1:]}
        lost = terms != "ZO" and not off["float16"] < off.get("bfloat16", FAR)
        told = ", ".join(f"{dtype} {error:.2%} off" for dtype, error in off.items())
        fault = "its gradient in float16 is farther off than bfloat16 would be" if lost else ""
        yield Row("gradient", f"{method} ({terms})", told, fault)


def _terms(place: Place) -> dict[str, str]:
    return {method: terms for method, terms in TERMS.items() if method in SMALL or not place.small}


@torch.no_grad()
def _weights_of(exact: Chain, chain: Chain) -> None:
    """Give a chain another one's weights in its own dtypes, and every adapter the same numbers.

    Random weights are others in each dtype. The adapter's B is not zero, so that A has a gradient.
    """
    for part, networks in parts_of(chain).items():
        for network, theirs in zip(networks, parts_of(exact)[part], strict=True):
            network.load_state_dict(theirs.state_dict())
    for n, p in enumerate(chain.parameters()):
        p.copy_(0.002 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))


def _gradient(config: CellConfig, chain: Chain, reward: Reward) -> Tensor:
    """Of a batch's first update, as one vector on the CPU."""
    training = trained(config)
    subject = subject_of(config, training, chain, reward)
    next(iter(subject.method.updates(subject.engine, Batch((PROMPT,) * training.train.batch, 0))))
    return torch.cat([p.grad.flatten() for p in chain.parameters() if p.grad is not None]).double().cpu()


def cost(place: Place) -> Iterator[Row]:
    """Seconds of a step by what they go into, and its peak of memory beside the simulated one."""
    simulate = Simulator()
    for method in _terms(place):
        config = place.cell(method, *SETTINGS)
        expected, found = simulate(config), measure(config, place.device)
        assert found.seconds is not None
        parts = found.seconds.parts
        told = (
            f"{found.seconds.total:.2f} (sampling {parts['sampling']:.2f}, backward {parts['backward']:.2f})"
        )
        yield Row("seconds", method, told)
        peak = found.device if found.allocated is None else found.allocated
        off = peak / expected.device - 1
        fault = "" if abs(off) < PREDICTED else f"peak memory is {off:+.0%} off what `bench plan` simulates"
        yield Row("memory", method, f"{peak / GIB:.3g} GiB, simulated {expected.device / GIB:.3g}", fault)
        free()


def free() -> None:
    """Give memory back that nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
