"""Half precision, the decoder's dtype, attention, memory layout and compilation."""

import shutil
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment
from bench.experiment.choices import load_reward
from bench.experiment.settings import Choice
from bench.models.config import ModelConfig
from bench.models.pipeline import decoder_dtype, network_dtype
from bench.run.load import load_chain
from tests.models.test_image import latents, picture
from tests.support.pipelines import CPU, image_chain, small_chain
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient

CUDA = torch.device("cuda")
PLAN = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 2), Segment(Kind.FO, 2, 3)), (0, 1, 0))


def test_half_is_float16_on_a_gpu_and_bfloat16_on_a_cpu() -> None:
    half = ModelConfig(dtype="half")
    assert network_dtype(half, CUDA) == torch.float16
    assert network_dtype(half, CPU) == torch.bfloat16
    assert network_dtype(ModelConfig(dtype="bfloat16"), CUDA) == torch.bfloat16


@pytest.mark.parametrize(
    ("vae_dtype", "network", "upcast", "expected"),
    [
        ("auto", torch.float16, True, torch.float32),
        ("auto", torch.bfloat16, True, torch.bfloat16),
        ("auto", torch.float16, False, torch.float16),
        ("float32", torch.bfloat16, False, torch.float32),
    ],
)
def test_decoder_is_float32_where_asked_or_where_sdxls_would_overflow(
    vae_dtype: Any, network: torch.dtype, upcast: bool, expected: torch.dtype
) -> None:
    config = ModelConfig(vae_dtype=vae_dtype)
    assert decoder_dtype(config, network, upcast) == expected


@pytest.mark.parametrize("source", ["embedded:sd", "embedded:video"])
def test_decoder_of_the_embedded_models_is_float32_under_float16_alone(source: str) -> None:
    """Their activations go to 1e6."""
    config = ModelConfig(source=source)
    found = [
        decoder_dtype(config, dtype, upcast=False) for dtype in (torch.float16, torch.bfloat16, torch.float32)
    ]
    assert found == [torch.float32, torch.bfloat16, torch.float32]
    assert (
        decoder_dtype(ModelConfig(source=source, vae_dtype="float16"), torch.float16, False) == torch.float16
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_embedded_model_takes_a_step_in_half_precision(dtype: Any) -> None:
    """As `--model tiny --set model.dtype=half` does on a GPU and on a CPU."""
    chain = load_chain(ModelConfig(source="embedded:sd", steps=3, guidance=1.0, dtype=dtype), CPU)
    engine = engine_of(chain, load_reward(Choice(name="clip", config={}), CPU))
    report = engine.gradient(
        engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=0.3)), torch.tensor([1.0, -2.0])
    )
    assert bool(report.rewards.isfinite().all()) and all(term.norm > 0 for term in report.terms.values())
    assert bool(gradient(chain).isfinite().all())


def gradients(**options: Any) -> Tensor:
    """The engine's gradient over a zeroth-, a half- and a first-order step."""
    chain = image_chain(steps=3, dtype="half", **options)
    assert chain.network.dtype == torch.bfloat16
    engine = engine_of(chain, Pattern(), micro_batch=2, offload=chain.config.offload)
    trajectory = engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=0.3), reward_grad=True)
    engine.gradient(trajectory, torch.tensor([1.0, -2.0]))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in chain.parameters())
    return gradient(chain)


@pytest.mark.slow
def test_half_precision_gradient_points_where_float32s_does() -> None:
    chain = image_chain(steps=3)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    engine.gradient(
        engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=0.3), reward_grad=True),
        torch.tensor([1.0, -2.0]),
    )
    full, half = gradient(chain), gradients()
    assert float(torch.cosine_similarity(full, half, dim=0)) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"offload": True}])
def test_checkpointing_and_offload_work_in_half_precision(options: dict[str, bool]) -> None:
    plain, frugal = gradients(), gradients(**options)
    assert float((frugal - plain).norm() / plain.norm()) < 0.02


@pytest.mark.slow
def test_perturbed_half_precision_batch_differs_row_by_row() -> None:
    chain = image_chain(steps=3, dtype="half")
    x, cond = latents(chain, 1).repeat(2, 1, 1, 1), chain.condition([PROMPTS[0]] * 2)
    delta = torch.zeros(2, sum(p.numel() for p in chain.parameters()))
    delta[1] = 0.3
    with torch.no_grad():
        plain = chain.transition(State(x), 0, cond, torch.zeros(2)).mean
        with chain.perturbed(delta):
            moved = chain.transition(State(x), 0, cond, torch.zeros(2)).mean
    torch.testing.assert_close(moved[0], plain[0], rtol=0.02, atol=0.02)
    assert float((moved[1] - plain[1]).abs().max()) > 0.05


@pytest.mark.slow
def test_decoder_that_overflows_names_the_setting_and_float32_mends_it() -> None:
    pictures = []
    for vae_dtype in ("float16", "float32"):
        chain = image_chain(steps=2, vae_dtype=vae_dtype)
        with torch.no_grad():
            chain.vae.decoder.conv_in.weight.mul_(60000)  # beyond float16's 65504 in the next layer
            if vae_dtype == "float16":
                with pytest.raises(BenchError, match=r"model\.vae_dtype=float32"):
                    chain.decode(10 * latents(chain))
            else:
                pictures.append(chain.decode(10 * latents(chain)))
    assert bool(pictures[0].isfinite().all())


def test_float32_decoder_of_a_half_network_passes_gradients() -> None:
    chain = image_chain(steps=2, dtype="half", vae_dtype="float32")
    x = latents(chain).requires_grad_()
    image = chain.decode(x)
    assert chain.vae.dtype == torch.float32 and image.dtype == torch.float32
    (grad,) = torch.autograd.grad(image.mean(), x)
    assert grad.dtype == torch.float32 and bool((grad != 0).any())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd14", "sdxl"])
def test_attention_is_pytorchs_fused_one(name: str) -> None:
    chain = small_chain(name, steps=2)
    processors = [*chain.network.attn_processors.values(), *chain.vae.attn_processors.values()]
    assert processors and {type(p) for p in processors} == {AttnProcessor2_0}


@pytest.mark.slow
def test_channels_last_changes_the_layout_and_not_the_picture() -> None:
    plain, other = image_chain(steps=3), image_chain(steps=3, channels_last=True)
    weight = other.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    x = latents(plain)
    torch.testing.assert_close(picture(other, x), picture(plain, x), rtol=0, atol=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_network_is_the_same_network_perturbed_and_with_another_lora_too(tmp_path: Any) -> None:
    plain, compiled = image_chain(steps=2), image_chain(steps=2, compile=True)
    x, cond = latents(plain), plain.condition(PROMPTS[:2])
    delta = torch.full((2, sum(p.numel() for p in plain.parameters())), 0.3)
    torch.testing.assert_close(picture(compiled, x), picture(plain, x), rtol=0, atol=1e-3)
    means = []
    for chain in (plain, compiled):
        with torch.no_grad(), chain.perturbed(delta):
            means.append(chain.transition(State(x), 0, cond, torch.zeros(2)).mean)
    torch.testing.assert_close(means[1], means[0], rtol=0, atol=1e-3)
    other = image_chain(steps=2, spread=0.6)
    other.save_lora(tmp_path / "lora")
    compiled.load_lora(tmp_path / "lora")
    torch.testing.assert_close(picture(compiled, x), picture(other, x), rtol=0, atol=1e-3)
