"""The FLUX.1 chain against diffusers' own pipeline, and its gradients against autograd."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.chain import State
from bench.models.config import LoraConfig, ModelConfig
from bench.models.flux import FluxChain, packed, unpacked
from bench.models.image import ImageChain
from bench.models.random_weights import random_parts
from tests.models.test_image import latents, picture
from tests.support import chain_checks
from tests.support.flux import TARGETS, flux_chain, flux_dir, small_flux
from tests.support.pipelines import CPU, change
from tests.support.toys import PROMPTS

pytestmark = pytest.mark.slow


def plain_pipeline(directory: Path | None = None) -> FluxPipeline:
    """The same weights in a pipeline without anything of ours."""
    pipeline = FluxPipeline(**random_parts(directory or small_flux(), torch.float32))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def diffusers_picture(pipeline: FluxPipeline, chain: FluxChain, x: Tensor, **options: Any) -> Tensor:
    """The pipeline's own."""
    height, width = (2 * side for side in x.shape[-2:])
    images: Any = pipeline(
        list(PROMPTS[: len(x)]),
        latents=FluxPipeline._pack_latents(x, *x.shape),
        height=height,
        width=width,
        num_inference_steps=chain.steps,
        output_type="pt",
        max_sequence_length=chain.config.t5_tokens or 512,
        **options,
    )
    return images.images


@pytest.mark.parametrize("solver", ["euler", "flow_sde", "flow_cps"])
def test_picture_at_eta_0_is_the_pipelines(solver: str) -> None:
    chain = flux_chain(0.0, resolution=(16, 24), solver=solver, steps=5)
    assert chain.evaluations_per_step == 1 and chain.latent_shape == (4, 8, 12)
    x = latents(chain)
    ours = picture(chain, x)
    theirs = diffusers_picture(plain_pipeline(), chain, x, guidance_scale=3.5)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    assert not torch.allclose(ours, picture(flux_chain(0.0, resolution=(16, 24), guidance=1.0), x), atol=1e-3)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_network_that_is_not_told_the_guidance_is_guided(guidance: float) -> None:
    """By the empty text, as the pipeline does with `true_cfg_scale`."""
    chain = flux_chain(0.0, small_flux(told=False), guidance=guidance, t5_tokens=None)
    assert chain.evaluations_per_step == (1 if guidance == 1 else 2)
    x, empty = latents(chain), [""] * 2
    pipeline = plain_pipeline(small_flux(told=False))
    theirs = diffusers_picture(pipeline, chain, x, negative_prompt=empty, true_cfg_scale=guidance)
    torch.testing.assert_close(picture(chain, x), theirs, rtol=0, atol=2e-4)


def test_patches_are_the_pipelines() -> None:
    x = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(packed(x), FluxPipeline._pack_latents(x, *x.shape))
    assert torch.equal(unpacked(packed(x), 6, 10), x)


def test_a_directory_on_disk_is_the_same_chain() -> None:
    made, read = flux_chain(), flux_chain(path=flux_dir())
    x = latents(made)
    torch.testing.assert_close(picture(read, x), picture(made, x), rtol=0, atol=1e-5)


def test_size_is_the_pipelines_where_none_is_given() -> None:
    assert flux_chain(source=small_flux(told=False), resolution=None).latent_shape == (4, 128, 128)
    with pytest.raises(BenchError, match="18 is no multiple of 4, the pixels per side of one patch of 2×2"):
        flux_chain(resolution=18)


@pytest.mark.parametrize("solver", ["flow_sde", "flow_cps"])
def test_full_backpropagation_is_autograds_gradient_through_the_whole_chain(solver: str) -> None:
    chain_checks.full_backpropagation_is_autograds(flux_chain(steps=3, solver=solver))


def test_a_half_order_step_is_the_likelihood_ratio() -> None:
    chain_checks.half_order_is_the_likelihood_ratio(flux_chain(steps=3))


def test_a_perturbed_row_runs_with_its_own_parameters() -> None:
    """In both kinds of blocks."""
    chain_checks.a_perturbed_row_runs_with_its_own_parameters(flux_chain)


@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"offload": True}])
def test_checkpointing_and_offload_change_no_gradient(options: dict[str, Any]) -> None:
    chain_checks.settings_change_no_gradient(flux_chain, options)


def test_half_precision_is_near_the_pipelines_own() -> None:
    """Latents stay float32 here, so the two differ by the rounding of eight bits at every step."""
    chain = flux_chain(0.0, dtype="bfloat16")
    x = latents(chain)
    theirs = diffusers_picture(
        FluxPipeline(**random_parts(small_flux(), torch.bfloat16)), chain, x.bfloat16(), guidance_scale=3.5
    )
    out = chain.transition(State(x), 0, chain.condition(PROMPTS[:2]), torch.ones(2))
    assert out.mean.dtype == out.std.dtype == torch.float32
    assert float((picture(chain, x) - theirs.float()).abs().mean()) < 0.02 < float(theirs.float().std())


def test_a_lora_goes_to_diffusers_and_back(tmp_path: Path) -> None:
    chain = flux_chain()
    chain.save_lora(tmp_path)
    x, pipeline = latents(chain), plain_pipeline()
    pipeline.load_lora_weights(str(tmp_path))
    ours = picture(chain, x)
    theirs = diffusers_picture(pipeline, chain, x, guidance_scale=3.5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    again = flux_chain(0.1, lora=LoraConfig(rank=3))
    again.load_lora(tmp_path)
    assert torch.equal(picture(again, x), ours)


def test_alphas_among_a_loras_tensors_count(tmp_path: Path) -> None:
    """diffusers takes them out of the tensors, and gives them apart to those who ask."""
    chain = flux_chain()
    chain.save_lora(tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = load_file(file)  # without the metadata
    layers = {key.partition(".lora_")[0] for key in tensors}
    assert len(layers) == 12
    save_file(tensors | {f"{layer}.alpha": torch.tensor(1.0) for layer in layers}, file)
    halved = flux_chain()
    halved.load_lora(tmp_path)
    expected = flux_chain(lora=LoraConfig(rank=2, alpha=1.0, targets=TARGETS))
    with torch.no_grad():
        for new, old in zip(expected.parameters(), chain.parameters(), strict=True):
            new.copy_(old)
    x = latents(chain)
    torch.testing.assert_close(picture(halved, x), picture(expected, x))
    assert not torch.allclose(picture(halved, x), picture(chain, x), atol=1e-3)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"in_channels": 24}, "in_channels is 24: for patches of 2×2 .* has to be 16"),
        ("transformer", {"out_channels": 32}, "out_channels is 32"),
        ("transformer", {"patch_size": 2}, "patch_size is 2"),
        ("transformer", {"joint_attention_dim": 48}, "joint_attention_dim is 48, and the text encoders'"),
        ("transformer", {"pooled_projection_dim": 48}, "pooled_projection_dim is 48"),
        ("scheduler", {"invert_sigmas": True}, "invert_sigmas is true"),
        ("vae", {"shift_factor": float("inf")}, "shift_factor is inf"),
    ],
)
def test_what_would_mean_something_else_is_refused(
    part: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    directory = tmp_path / "pipeline"
    shutil.copytree(small_flux(), directory)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    change(directory / part / name, changes)
    with pytest.raises(BenchError, match=message):
        flux_chain(source=directory)


def test_settings_of_other_families_are_refused() -> None:
    with pytest.raises(BenchError, match=r"model\.family=flux --set model\.solver=flow_sde"):
        ImageChain.load(ModelConfig(path=flux_dir()), CPU)
    with pytest.raises(BenchError, match="choose euler, flow_sde or flow_cps"):
        flux_chain(solver="ddim")
    with pytest.raises(BenchError, match=r"model\.t5: only pipelines of Stable Diffusion 3 may lack"):
        flux_chain(t5=False)
    with pytest.raises(BenchError, match=r"model\.t5_tokens: this model's text encoder is no T5"):
        ImageChain.load(ModelConfig(source="random:tiny", t5_tokens=8), CPU)


def test_every_target_has_an_adapter() -> None:
    names = [name for name, _ in flux_chain().network.named_parameters() if ".lora_" in name]
    assert all(any(f".{target}." in name for name in names) for target in TARGETS)
    assert any(name.startswith("single_transformer_blocks.0.attn.to_q") for name in names)
