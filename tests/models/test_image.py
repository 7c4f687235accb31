"""The image chain against diffusers' own pipeline, and its options against each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment
from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.latent_chain import LatentChain
from scripts.embedded.export import Prediction
from tests.support.pipelines import CPU, image_chain, pipeline_dir
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient


def latents(chain: LatentChain, count: int = 2) -> Tensor:
    """x_T."""
    return torch.randn(count, *chain.latent_shape, generator=torch.Generator().manual_seed(5))


def picture(chain: LatentChain, x: Tensor, prompts: Sequence[str] = PROMPTS) -> Tensor:
    """Our deterministic sampler."""
    cond, state = chain.condition(prompts[: len(x)]), chain.prior(x)
    with torch.no_grad():
        for i in range(chain.steps):
            out = chain.transition(state, i, cond, torch.zeros(len(x)))
            valid = None if out.history is None else torch.ones(len(x), dtype=torch.bool)
            state = State(out.mean, out.history, valid)
        return chain.decode(state.x)


def diffusers_picture(pipeline: StableDiffusionPipeline, chain: ImageChain, x: Tensor) -> Tensor:
    """The pipeline's own."""
    pipeline.set_progress_bar_config(disable=True)
    images: Any = pipeline(
        list(PROMPTS[: len(x)]),
        latents=x,
        num_inference_steps=chain.steps,
        guidance_scale=chain.config.guidance,
        output_type="pt",
    )
    return images.images


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize(
    ("solver", "prediction", "alpha_to_one"),
    [
        ("ddim", "epsilon", False),
        ("ddim", "epsilon", True),
        ("ddim", "v_prediction", False),
        ("dpmpp", "epsilon", False),
        ("dpmpp", "v_prediction", False),
    ],
)
def test_picture_at_eta_0_is_the_pipelines(
    guidance: float, solver: str, prediction: Prediction, alpha_to_one: bool
) -> None:
    chain = image_chain(
        prediction_type=prediction,
        set_alpha_to_one=alpha_to_one,
        spread=0.0,
        guidance=guidance,
        solver=solver,
        steps=5,
    )
    pipeline = StableDiffusionPipeline.from_pretrained(
        pipeline_dir(prediction, alpha_to_one), local_files_only=True
    )
    if solver == "dpmpp":
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    x = latents(chain)
    ours, theirs = picture(chain, x), diffusers_picture(pipeline, chain, x)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_resolution_sets_the_size_of_latents_and_pictures() -> None:
    chain = image_chain(resolution=24, steps=2)
    assert chain.latent_shape == (4, 12, 12)
    assert picture(chain, latents(chain)).shape == (2, 3, 24, 24)
    assert image_chain(steps=2).latent_shape == (4, 8, 8)


def test_a_condition_row_belongs_to_its_prompt_whatever_was_asked_before() -> None:
    chain = image_chain(steps=2)
    first = chain.condition([PROMPTS[1]]).positive.states
    several = chain.condition([*PROMPTS[:3], PROMPTS[1]])
    assert torch.equal(several.positive.states[1], several.positive.states[3])
    torch.testing.assert_close(several.positive.states[1], first[0])
    assert several.negative is not None
    assert torch.equal(several.negative.states[0], several.negative.states[3])
    assert torch.equal(several.select(torch.tensor([2])).positive.states[0], several.positive.states[2])


@pytest.mark.slow
def test_one_step_prediction_is_where_a_noiseless_last_step_ends() -> None:
    chain = image_chain(set_alpha_to_one=True, steps=3)
    cond, state = chain.condition(PROMPTS[:2]), State(latents(chain))
    end = chain.transition(state, 2, cond, torch.zeros(2)).mean
    torch.testing.assert_close(chain.predict_x0(state, 2, cond), end)


def test_x_path_alone_scales_x_and_leaves_the_parameters_out_or_keeps_them() -> None:
    chain = image_chain(steps=3)
    cond, x = chain.condition(PROMPTS[:2]), latents(chain).requires_grad_()
    whole = chain.transition(State(x), 1, cond, torch.zeros(2)).mean
    out = chain.transition(State(x), 1, cond, torch.zeros(2), x_path_only=True).mean
    assert torch.equal(out, whole)
    grads = torch.autograd.grad(out.sum(), [x, *chain.parameters()], allow_unused=True)
    solver: Any = chain.solver
    factor = (solver.grid.a_prev[1] / solver.grid.a_t[1]).sqrt()  # DDIM with eps held fixed
    torch.testing.assert_close(grads[0], factor.expand_as(x))
    assert all(g is None for g in grads[1:])
    cut = chain.transition(State(x), 1, cond, torch.zeros(2), detach_input=True).mean
    assert torch.equal(cut, whole)
    found = torch.autograd.grad(cut.sum(), [x, *chain.parameters()])
    torch.testing.assert_close(found[0], grads[0])
    learned = torch.autograd.grad(whole.sum(), chain.parameters())
    assert all(torch.equal(f, g) for f, g in zip(found[1:], learned, strict=True))


ROW = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 2), Segment(Kind.FO, 2, 3)), (0, 1, 0))


def gradients(**options: Any) -> tuple[Tensor, Tensor, int]:
    """(the engine's gradient, the pathwise one, how often the UNet's last block ran meanwhile)."""
    chain = image_chain(steps=3, **options)
    engine = engine_of(chain, Pattern(), micro_batch=2, offload=chain.config.offload)
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    trajectory = engine.rollout([ROW] * 2, batch_of(2), Perturbation(scale=0.3), reward_grad=True)
    # Before, not after: a recomputation stops as soon as it has what the backward needs.
    chain.network.up_blocks[-1].resnets[0].register_forward_pre_hook(count)
    engine.gradient(trajectory, torch.tensor([1.0, -2.0]))
    return gradient(chain), engine.pathwise(trajectory), calls[0]


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
@pytest.mark.parametrize(
    "options",
    [{"gradient_checkpointing": True}, {"offload": True}, {"gradient_checkpointing": True, "offload": True}],
    ids=["checkpointing", "offload", "both"],
)
def test_checkpointing_and_offload_change_no_gradient(solver: str, options: dict[str, bool]) -> None:
    """Pathwise too: its recomputed forward must run with the step's perturbation."""
    plain, frugal = gradients(solver=solver), gradients(solver=solver, **options)
    for expected, found in zip(plain[:2], frugal[:2], strict=True):
        assert float((found - expected).norm() / expected.norm()) < 1e-5
    recomputed = 2 if options.get("gradient_checkpointing") else 1
    assert plain[2] == 2 + 3  # HO and FO, then all three steps
    assert frugal[2] == recomputed * plain[2]


def test_half_precision_network_has_float32_latents_and_lora() -> None:
    chain = image_chain(dtype="bfloat16", steps=2)
    out = chain.transition(State(latents(chain)), 0, chain.condition(PROMPTS[:2]), torch.ones(2))
    assert out.mean.dtype == out.std.dtype == torch.float32
    assert {p.dtype for p in chain.parameters()} == {torch.float32}
    assert chain.network.dtype == torch.bfloat16
    assert chain.decode(out.mean).dtype == torch.float32


def test_only_the_lora_is_trainable() -> None:
    chain = image_chain(steps=2)
    everything = [
        *chain.network.parameters(),
        *chain.vae.parameters(),
        *chain.pipeline.text_encoder.parameters(),
    ]
    trainable = [p for p in everything if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in chain.parameters()}
    assert chain.parameters()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda d: ModelConfig(), "model.path"),
        (lambda d: ModelConfig(path=d), "no model_index.json"),
        (
            lambda d: ModelConfig(path=pipeline_dir(), lora=LoraConfig(targets=("to_qq",))),
            "no layer of the network is called 'to_qq'",
        ),
        (
            lambda d: ModelConfig(path=pipeline_dir(), steps=1001),
            "the model knows 1000 noise levels",
        ),
        (
            lambda d: ModelConfig(path=pipeline_dir(), steps=1001, solver="dpmpp"),
            "the model knows 1000 noise levels",
        ),
        (lambda d: ModelConfig(path=pipeline_dir(), resolution=9), "9 is no multiple of"),
    ],
    ids=["no path", "no pipeline", "no such layer", "too many steps", "dpmpp", "size of no latent"],
)
def test_model_that_cannot_be_loaded_says_why(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=message):
        ImageChain.load(config(tmp_path), CPU)


def test_without_a_graph_few_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = image_chain()
    x, sizes, decode = latents(chain, 5), list[int](), chain.vae.decode
    monkeypatch.setattr(chain.vae, "decode", lambda z: sizes.append(len(z)) or decode(z))
    each = chain.decode(x[:1])[0, 0].numel()
    monkeypatch.setattr("bench.models.latent_chain.DECODED", 2 * each)
    sizes.clear()
    with torch.no_grad():
        some = chain.decode(x)
    assert sizes == [2, 2, 1]
    whole = chain.decode(x)
    assert sizes[3:] == [5]  # with one, the settings say how many
    torch.testing.assert_close(some, whole.detach())
