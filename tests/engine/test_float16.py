"""Gradients through networks in float16: as good for small cotangents as for large ones, and finite."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Evaluations, MicroBatch, Perturbation
from bench.engine.chain import State
from bench.engine.control_variate import Control, Scale
from bench.engine.engine import Engine
from bench.engine.float16 import Product, Through, decoder, network, power_of_two
from bench.engine.kept_graphs import Keep
from bench.engine.likelihood_ratio import LikelihoodRatio
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.pullback import Vjp
from bench.experiment.choices import load_reward
from bench.experiment.settings import Choice
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from bench.run.load import load_chain
from tests.support.pipelines import CPU, image_chain
from tests.support.toy import ToyChain
from tests.support.toys import Pattern, batch_of, engine_of, fill, gradient

FO, HO = Kind.FO, Kind.HO
PLAN = Plan((Segment(HO, 0, 2), Segment(FO, 2, 4)), (0, 1, 0, 0))
ADVANTAGES = torch.tensor([1.0, -2.0])
FAINT = 2.0**-20  # a power of two, so that what it multiplies keeps its bits
LARGE = 2.0**14


class Scaled(Pattern):
    """Pattern's score times a factor for each picture."""

    def __init__(self, *factors: float) -> None:
        """factors: of all pictures, or one each."""
        super().__init__()
        self.factors = torch.tensor(factors)

    def score(self, media: Tensor, prompts: Any) -> Tensor:
        """[B] of media [B, …]."""
        return super().score(media, prompts) * self.factors


@cache
def tiny(dtype: str) -> ImageChain:
    """The embedded model at four steps, its LoRA away from its initialisation."""
    model = ModelConfig(source="embedded:sd", steps=4, guidance=1.0, dtype=dtype, vae_dtype="float32")  # type: ignore[arg-type]
    chain = load_chain(model, CPU)
    assert isinstance(chain, ImageChain)
    fill(chain, 0.05)
    return chain


def off(found: Tensor, expected: Tensor) -> float:
    """The distance, relative to what is expected."""
    return float((found - expected).norm() / expected.norm())


def parameters(found: Vjp) -> Tensor:
    """Their gradients, flat."""
    return torch.cat([g.flatten() for g in found.parameters if g is not None])


def prepared(engine: Engine, x: Tensor, i: int) -> MicroBatch:
    """A micro-batch of two samples that stands at x before step i."""
    micro = engine.roller.prepare([0, 1], [PLAN] * 2, batch_of(2), Perturbation())
    micro.states = [State(x)] * (i + 1)
    return micro


@pytest.mark.slow
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6, 1e4])
def test_a_step_in_float16_gives_float32s_gradient_whatever_the_size_of_the_cotangent(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Vjp] = {}
    for dtype in ("float16", "float32"):
        engine = engine_of(tiny(dtype), Pattern())
        x, cotangent = torch.randn(2, 2, *engine.chain.latent_shape, generator=generator.manual_seed(0))
        found[dtype] = engine.pullback.step(prepared(engine, x, 2), 2, [0, 1], size * cotangent)
    assert off(found["float16"].x, found["float32"].x) < 0.02
    assert off(parameters(found["float16"]), parameters(found["float32"])) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
def test_a_gradient_in_float16_is_float32s_and_scales_with_reward_and_advantages(graphs: Keep) -> None:
    """FO steps and an HO block: 2^-20 times the reward is 2^-20 times the gradient, to the last bit."""

    def found(dtype: str, factor: float) -> Tensor:
        chain = tiny(dtype)
        engine = engine_of(chain, Scaled(factor), graphs=graphs, graph_budget=10**12)
        engine.gradient(engine.rollout([PLAN] * 2, batch_of(2)), factor * ADVANTAGES)
        assert engine.graphs.kept.kept == (0 if graphs == "staged" else 8)
        return gradient(chain)

    half = found("float16", 1.0)
    assert torch.equal(found("float16", FAINT) / FAINT, half)
    assert off(half, found("float32", 1.0)) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes_keep_their_bits(dtype: str) -> None:
    """A step and dR/dx_0 are what one call of autograd gives."""
    chain = tiny(dtype)
    assert not network(chain).float16 and not decoder(chain).float16
    engine = engine_of(chain, load_reward(Choice(name="clip", config={}), CPU))
    x, cotangent = 1e-6 * torch.randn(2, 2, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
    micro = prepared(engine, x, 2)
    graph = engine.graphs.build(micro, 2, [0, 1], Kind.FO, need_input=True)
    expected = torch.autograd.grad(graph.out.mean, [*graph.inputs, *chain.parameters()], cotangent)
    found = engine.pullback.step(micro, 2, [0, 1], cotangent)
    for one, other in zip([found.x, *found.parameters], expected, strict=True):
        assert one is not None and torch.equal(one, other)
    leaf = x.clone().requires_grad_()
    score = engine.reward.score(chain.decode(leaf), micro.prompts)
    rewards, slope = engine.roller.reward_of(micro, [0, 1], x, need_grad=True)
    assert slope is not None and torch.equal(rewards, score)
    assert torch.equal(slope, torch.autograd.grad(score.sum(), leaf)[0])


def test_a_chain_that_does_not_say_what_it_computes_in_is_left_alone() -> None:
    assert not network(ToyChain(2, 1)).float16 and not decoder(ToyChain(2, 1)).float16


def loud(layer: Callable[[ImageChain], torch.nn.Module], **settings: Any) -> ImageChain:
    """A random chain with a layer whose output, and so the gradient through it, is LARGE times as large."""
    chain = image_chain(steps=2, **settings)
    with torch.no_grad():
        for p in layer(chain).parameters():
            p.mul_(LARGE)
    return chain


def counting(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> list[int]:
    """A list that grows with every call of the object's function."""
    calls, run = list[int](), getattr(place, name)

    def counted(*where: Any, **how: Any) -> Any:
        calls.append(1)
        return run(*where, **how)

    monkeypatch.setattr(place, name, counted)
    return calls


@pytest.mark.slow
def test_a_pass_that_overflows_is_made_again_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Vjp] = {}
    for dtype in ("float16", "float32"):
        chain = loud(lambda chain: chain.network.conv_out, dtype=dtype)
        engine = engine_of(chain, Pattern())
        built = counting(monkeypatch, engine.graphs, "build")
        x, cotangent = torch.randn(2, 2, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
        found[dtype] = engine.pullback.step(prepared(engine, x, 0), 0, [0, 1], cotangent)
        assert len(built) == (2 if dtype == "float16" else 1)
    assert off(found["float16"].x, found["float32"].x) < 0.02
    assert off(parameters(found["float16"]), parameters(found["float32"])) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("large", [False, True])
def test_the_decoder_in_float16_gives_each_pictures_gradient_whatever_its_size(
    large: bool, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """large: its first layer makes the gradient overflow, and what it takes is as much smaller."""
    found = []
    for vae_dtype in ("float16", "float32"):
        chain = image_chain(steps=2, vae_dtype=vae_dtype, decode_chunk=chunk)
        with torch.no_grad():
            chain.vae.decoder.conv_out.weight.mul_(0.5)  # no pixel is cut off, where dtypes may differ
            if large:
                chain.vae.post_quant_conv.weight.mul_(4 * LARGE)
        engine = engine_of(chain, Scaled(1.0, 1e-6))
        x = torch.randn(2, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
        x = x / (4 * LARGE) if large else x
        micro = prepared(engine, x, 1)
        decoded = counting(monkeypatch, chain, "decode")
        rewards, slope = engine.roller.reward_of(micro, [0, 1], x, need_grad=True)
        assert slope is not None and rewards.shape == (2,)
        assert len(decoded) == (2 if large and vae_dtype == "float16" else 1)
        found.append(slope)
    half, full = found
    assert off(half[0], full[0]) < 0.02 and off(half[1], full[1]) < 0.02


@pytest.mark.slow
def test_a_control_variates_slope_survives_float16() -> None:
    """Its reward is so faint that the unscaled pass would lose a third of it."""
    found = []
    for dtype in ("float16", "float32"):
        chain = tiny(dtype)
        engine = engine_of(chain, Scaled(FAINT))
        micro = engine.roller.prepare([0, 1], [PLAN] * 2, batch_of(2), Perturbation())
        engine.roller.roll(micro)
        control = Control((Scale(slope=1.0),) * chain.steps)
        ratio = LikelihoodRatio(engine.roller, ADVANTAGES, Evaluations(), control=control)
        found.append(ratio.surrogate(micro, 1, [0, 1], control).g)
    assert off(found[0], found[1]) < 0.02


def test_what_overflows_at_any_scale_names_the_setting_and_what_was_tried() -> None:
    def steep() -> Product:
        x = torch.zeros(2, 3, requires_grad=True)  # of infinite slope
        return [x.sqrt()], [x], [torch.ones(2, 3)]

    told = r"through the network at step 3 overflows in float16.* 2\^-20 .*--set model\.dtype=bfloat16"
    with pytest.raises(BenchError, match=told):
        Through("the network at step 3", "model.dtype", float16=True).vjp(steep)


def test_cotangents_that_are_not_finite_are_not_blamed_on_float16() -> None:
    made = list[int]()

    def product() -> Product:
        made.append(1)
        x = torch.ones(2, 3, requires_grad=True)
        return [2 * x], [x], [torch.tensor([[float("nan")] * 3, [1.0] * 3])]

    (found,) = Through("the network", "model.dtype", float16=True).vjp(product)
    assert found is not None and bool(found[0].isnan().all()) and made == [1]


def test_rows_of_their_own_scale_and_inputs_without_gradient() -> None:
    """In real float16: a row of 1e-9 beside one of 1e4, nothing for a parameter that has no part."""
    factor = torch.tensor([[1e4], [1e-9]])
    unused = torch.ones(1, requires_grad=True)

    def product() -> Product:
        x = torch.ones(2, 3, requires_grad=True)
        return [(3 * x.half()).float()], [x, unused], [factor.expand(2, 3)]

    found, nothing = Through("the image decoder", "model.vae_dtype", float16=True, by_row=True).vjp(product)
    assert nothing is None and found is not None
    torch.testing.assert_close(found, (3 * factor).expand(2, 3), rtol=1e-3, atol=0)


def test_powers_of_two_are_made_of_their_bits() -> None:
    exponents = torch.arange(-126, 128, dtype=torch.int32)
    assert power_of_two(exponents).tolist() == [2.0**n for n in range(-126, 128)]
