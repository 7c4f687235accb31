"""The Stable Diffusion 3 chain against diffusers' own pipeline, and its gradients against autograd."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment
from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.random_weights import random_parts
from bench.models.sd3 import Sd3Chain
from tests.models.test_image import latents, picture
from tests.support import chain_checks
from tests.support.pipelines import CPU, change
from tests.support.sd3 import TARGETS, sd3_chain, sd3_dir, small_sd3
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient

pytestmark = pytest.mark.slow

FO, HO, ZO = Kind.FO, Kind.HO, Kind.ZO


def plain_pipeline(directory: Path | None = None) -> StableDiffusion3Pipeline:
    """The same weights in a pipeline without anything of ours."""
    return StableDiffusion3Pipeline(**random_parts(directory or small_sd3(), torch.float32))


def diffusers_picture(pipeline: Any, chain: Sd3Chain, x: Tensor) -> Tensor:
    """The pipeline's own."""
    pipeline.set_progress_bar_config(disable=True)
    side = 2 * x.shape[-1]
    images: Any = pipeline(
        list(PROMPTS[: len(x)]),
        latents=x,
        height=side,
        width=side,
        num_inference_steps=chain.steps,
        guidance_scale=chain.config.guidance,
        output_type="pt",
    )
    return images.images


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize(("t5", "dynamic"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("solver", ["euler", "flow_sde", "flow_cps"])
def test_picture_at_eta_0_is_the_pipelines(guidance: float, t5: bool, dynamic: bool, solver: str) -> None:
    directory = small_sd3(t5, dynamic)
    chain = sd3_chain(0.0, directory, guidance=guidance, solver=solver, steps=5)
    x = latents(chain)
    ours, theirs = picture(chain, x), diffusers_picture(plain_pipeline(directory), chain, x)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_a_directory_on_disk_is_the_same_chain() -> None:
    made, read = sd3_chain(), sd3_chain(path=sd3_dir())
    x = latents(made)
    torch.testing.assert_close(picture(read, x), picture(made, x), rtol=0, atol=1e-5)


def test_t5_can_be_left_out(tmp_path: Path) -> None:
    """Of a directory whose files are not there, too; the picture is that of a pipeline without it."""
    directory = tmp_path / "pipeline"
    shutil.copytree(sd3_dir(), directory)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(directory / part)
    read, made = sd3_chain(path=directory, t5=False), sd3_chain(source=small_sd3(t5=False))
    assert read.pipeline.text_encoder_3 is None
    x = latents(read)
    torch.testing.assert_close(picture(read, x), picture(made, x), rtol=0, atol=1e-5)
    torch.testing.assert_close(picture(sd3_chain(t5=False), x), picture(made, x), rtol=0, atol=1e-5)
    assert not torch.allclose(picture(sd3_chain(), x), picture(made, x), atol=1e-3)


def test_resolution_sets_the_size_of_latents_and_pictures() -> None:
    chain = sd3_chain(resolution=24, steps=2)
    assert chain.latent_shape == (4, 12, 12)
    assert picture(chain, latents(chain)).shape == (2, 3, 24, 24)
    with pytest.raises(BenchError, match="26 is no multiple of 4, the pixels per side of one patch of 2×2"):
        sd3_chain(resolution=26)
    with pytest.raises(BenchError, match="places for 48 pixels"):
        sd3_chain(resolution=64)


@pytest.mark.parametrize("solver", ["flow_sde", "flow_cps"])
def test_full_backpropagation_is_autograds_gradient_through_the_whole_chain(solver: str) -> None:
    chain_checks.full_backpropagation_is_autograds(sd3_chain(steps=3, solver=solver))


@pytest.mark.parametrize("solver", ["flow_sde", "flow_cps"])
def test_a_half_order_step_is_the_likelihood_ratio(solver: str) -> None:
    chain_checks.half_order_is_the_likelihood_ratio(sd3_chain(steps=3, solver=solver))


def test_a_perturbed_row_runs_with_its_own_parameters() -> None:
    chain_checks.a_perturbed_row_runs_with_its_own_parameters(sd3_chain)


PLAN = Plan((Segment(ZO, 0, 1), Segment(HO, 1, 3), Segment(FO, 3, 4)), (0, 0, 0.5, 0))


@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"offload": True}])
def test_checkpointing_and_offload_change_no_gradient(options: dict[str, Any]) -> None:
    chain_checks.settings_change_no_gradient(sd3_chain, options)


@pytest.mark.parametrize("graphs", ["auto", "joint"])
def test_kept_graphs_change_no_gradient(graphs: Any) -> None:
    found = []
    for keep in ("staged", graphs):
        chain = sd3_chain()
        engine = engine_of(chain, Pattern(), micro_batch=2, graphs=keep)
        trajectory = engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=0.3))
        engine.gradient(trajectory, torch.tensor([1.0, -2.0]))
        found.append(gradient(chain))
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 1e-5


def test_a_readout_is_x_less_sigma_v() -> None:
    chain = sd3_chain(steps=3)
    x, cond = State(latents(chain)), chain.condition(PROMPTS[:2])
    end = chain.transition(x, 2, cond, torch.zeros(2)).mean
    torch.testing.assert_close(chain.predict_x0(x, 2, cond), end)
    x0 = chain.predict_x0(x, 1, cond, x_path_only=True)
    torch.testing.assert_close(x0, chain.predict_x0(x, 1, cond))
    assert not x0.requires_grad


def test_with_the_networks_input_detached_x_goes_by_the_solver_alone_and_parameters_learn() -> None:
    chain = sd3_chain(steps=3)
    cond, x = chain.condition(PROMPTS[:2]), latents(chain).requires_grad_()
    for run in (
        lambda cut: chain.transition(State(x), 1, cond, torch.zeros(2), detach_input=cut).mean,
        lambda cut: chain.predict_x0(State(x), 1, cond, detach_input=cut),
    ):
        found = torch.autograd.grad(run(True).sum(), [x, *chain.parameters()])
        torch.testing.assert_close(found[0], torch.ones_like(x))  # x + (σ' - σ) v, v held fixed
        learned = torch.autograd.grad(run(False).sum(), chain.parameters())
        assert all(torch.equal(f, g) for f, g in zip(found[1:], learned, strict=True))


def test_half_precision_network_has_float32_latents_and_lora() -> None:
    chain = sd3_chain(dtype="bfloat16", steps=2)
    out = chain.transition(State(latents(chain)), 0, chain.condition(PROMPTS[:2]), torch.ones(2))
    assert out.mean.dtype == out.std.dtype == torch.float32
    assert {p.dtype for p in chain.parameters()} == {torch.float32}
    assert chain.network.dtype == torch.bfloat16
    assert chain.decode(out.mean).dtype == torch.float32


def test_a_lora_goes_to_diffusers_and_back(tmp_path: Path) -> None:
    chain = sd3_chain()
    chain.save_lora(tmp_path)
    x, pipeline = latents(chain), plain_pipeline()
    pipeline.load_lora_weights(str(tmp_path))
    ours = picture(chain, x)
    torch.testing.assert_close(ours, diffusers_picture(pipeline, chain, x), rtol=0, atol=2e-4)
    again = sd3_chain(0.1, lora=LoraConfig(rank=3))
    again.load_lora(tmp_path)
    assert torch.equal(picture(again, x), ours)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"in_channels": 33}, "in_channels is 33: the decoder's latents have 4 channels"),
        (
            "transformer",
            {"joint_attention_dim": 48},
            "joint_attention_dim is 48, and the text encoders' states",
        ),
        ("transformer", {"pooled_projection_dim": 48}, "pooled_projection_dim is 48"),
        ("scheduler", {"stochastic_sampling": True}, "stochastic_sampling is true"),
        ("vae", {"shift_factor": float("inf")}, "shift_factor is inf"),
    ],
)
def test_what_would_mean_something_else_is_refused(
    part: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    directory = tmp_path / "pipeline"
    shutil.copytree(small_sd3(), directory)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    change(directory / part / name, changes)
    with pytest.raises(BenchError, match=message):
        sd3_chain(source=directory)


def test_another_familys_pipeline_says_what_to_set() -> None:
    with pytest.raises(BenchError, match=r"model\.family=sd3 --set model\.solver=flow_sde"):
        ImageChain.load(ModelConfig(path=sd3_dir()), CPU)
    with pytest.raises(BenchError, match="choose euler, flow_sde or flow_cps"):
        sd3_chain(solver="ddim")


def test_every_target_has_an_adapter() -> None:
    names = [name for name, _ in sd3_chain().network.named_parameters() if ".lora_" in name]
    assert all(any(f".{target}." in name for name in names) for target in TARGETS)
