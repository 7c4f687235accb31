"""The Wan chain against diffusers' own pipeline, and its gradients against autograd."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.chain import State
from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.random_weights import random_parts
from bench.models.wan import WanChain, wan_solver
from tests.models.test_image import latents, picture
from tests.support import chain_checks
from tests.support.pipelines import CPU, change
from tests.support.toys import PROMPTS
from tests.support.wan import FRAMES, TARGETS, small_wan, wan_chain, wan_dir

pytestmark = pytest.mark.slow


def plain_pipeline(**scheduler: Any) -> WanPipeline:
    """The same weights in a pipeline without anything of ours, which runs Euler's method: UniPC's first order
    without its corrector."""
    pipeline = WanPipeline(**random_parts(small_wan(), torch.float32))
    euler = {"solver_order": 1, "disable_corrector": list(range(50))}
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, **euler, **scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def diffusers_video(pipeline: WanPipeline, chain: WanChain, x: Tensor) -> Tensor:
    """The pipeline's own, [B, F, 3, H, W]."""
    height, width = chain.pixels
    found: Any = pipeline(
        list(PROMPTS[: len(x)]),
        latents=x,
        height=height,
        width=width,
        num_frames=FRAMES,
        num_inference_steps=chain.steps,
        guidance_scale=chain.config.guidance,
        max_sequence_length=chain.config.t5_tokens or 512,
        output_type="pt",
    )
    return found.frames


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("solver", ["euler", "flow_sde"])
def test_video_at_eta_0_is_the_pipelines(guidance: float, solver: str) -> None:
    chain = wan_chain(0.0, guidance=guidance, solver=solver, steps=5)
    assert chain.latent_shape == (4, 3, 2, 4) and chain.pixels == (16, 32)
    x = latents(chain)
    ours, theirs = picture(chain, x), diffusers_video(plain_pipeline(), chain, x)
    assert ours.shape == (2, FRAMES, 3, 16, 32)
    assert float(theirs.std()) > 0.02
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-4)


def test_levels_of_diffusers_flow_scheduler_run_too() -> None:
    settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "num_train_timesteps": 1000}
    theirs: Any = FlowMatchEulerDiscreteScheduler.from_config(settings)
    theirs.set_timesteps(7)
    assert torch.equal(wan_solver(settings, "euler", 7, 8).sigma, theirs.sigmas[:-1])


def test_the_first_step_of_the_sde_begins_at_pure_noise() -> None:
    """UniPC's first sigma is 1 - 1e-6: the noise there is eta, and no thousand times that."""
    chain = wan_chain()
    step = chain.transition(State(latents(chain)), 0, chain.condition(PROMPTS[:2]), torch.full((2,), 0.7))
    torch.testing.assert_close(step.std.flatten(), torch.full((2,), 0.7), rtol=1e-3, atol=0)


def test_a_directory_on_disk_is_the_same_chain() -> None:
    made, read = wan_chain(), wan_chain(path=wan_dir())
    x = latents(made)
    torch.testing.assert_close(picture(read, x), picture(made, x), rtol=0, atol=1e-5)


def test_frames_can_be_chosen() -> None:
    chain = wan_chain()
    x, chosen = latents(chain), torch.tensor([[0, 5], [8, 1]])
    video = chain.decode(x)
    assert torch.equal(chain.decode(x, chosen), torch.stack([video[b, chosen[b]] for b in range(2)]))


def test_decoding_again_for_a_gradient_changes_nothing() -> None:
    found = []
    for again in (False, True):
        chain = wan_chain(gradient_checkpointing=again)
        x = latents(chain).requires_grad_()
        video = chain.decode(x)
        (grad,) = torch.autograd.grad((video * torch.arange(FRAMES)[:, None, None, None]).sum(), x)
        found.append((video.detach(), grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    assert float(found[0][1][:, :, 0].abs().sum()) > 0


def test_numbers_of_frames_and_sizes_that_fit() -> None:
    with pytest.raises(BenchError, match=r"frames: 8 has to be one more than a multiple of 4.*: 5, for"):
        wan_chain(frames=8)
    with pytest.raises(BenchError, match="24 is no multiple of 16, the pixels per side of one patch of 2×2"):
        wan_chain(resolution=24)
    with pytest.raises(BenchError, match=r"model\.resolution: must be given"):
        wan_chain(resolution=None)
    with pytest.raises(BenchError, match=r"model\.decode_chunk: .* one frame of latents at a time"):
        wan_chain(decode_chunk=1)
    with pytest.raises(BenchError, match=r"model\.fps: this model is not told"):
        wan_chain(fps=16)


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}])
def test_full_backpropagation_is_autograds_gradient_through_the_whole_chain(options: dict[str, Any]) -> None:
    chain_checks.full_backpropagation_is_autograds(wan_chain(steps=3, **options))


def test_a_perturbed_row_runs_with_its_own_parameters() -> None:
    """In the attention over pictures and in that to words."""
    chain_checks.a_perturbed_row_runs_with_its_own_parameters(wan_chain)


def test_half_precision_keeps_in_float32_what_diffusers_keeps() -> None:
    made, read = wan_chain(dtype="bfloat16"), wan_chain(dtype="bfloat16", path=wan_dir())
    kinds = [{n: p.dtype for n, p in chain.network.named_parameters()} for chain in (made, read)]
    assert kinds[0] == kinds[1]
    assert kinds[0]["blocks.0.scale_shift_table"] == torch.float32
    assert kinds[0]["blocks.0.ffn.net.2.base_layer.weight"] == torch.bfloat16
    for chain in (made, read):
        assert chain.network.rope.freqs_cos.dtype == torch.float32
        out = chain.transition(State(latents(chain)), 0, chain.condition(PROMPTS[:2]), torch.ones(2))
        assert out.mean.dtype == torch.float32 and bool(chain.decode(out.mean).isfinite().all())


def test_a_lora_goes_to_diffusers_and_back(tmp_path: Path) -> None:
    chain = wan_chain()
    chain.save_lora(tmp_path)
    x, pipeline = latents(chain), plain_pipeline()
    pipeline.load_lora_weights(str(tmp_path))
    ours = picture(chain, x)
    torch.testing.assert_close(ours, diffusers_video(pipeline, chain, x), rtol=0, atol=5e-4)
    again = wan_chain(0.1, lora=LoraConfig(rank=3))
    again.load_lora(tmp_path)
    assert torch.equal(picture(again, x), ours)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"boundary_ratio": 0.9}, "boundary_ratio is 0.9, and only None"),
        ("model_index.json", {"expand_timesteps": True}, "expand_timesteps is True"),
        ("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "transformer_2 is"),
        ("transformer/config.json", {"image_dim": 1280}, "image_dim is 1280"),
        ("transformer/config.json", {"in_channels": 36}, "in_channels is 36, and only 4"),
        ("transformer/config.json", {"text_dim": 48}, "text_dim is 48, and the text encoders'"),
        ("vae/config.json", {"patch_size": 2}, "patch_size is 2"),
        ("vae/config.json", {"latents_std": [1.0]}, "need 4 finite numbers"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "use_flow_sigmas is False; flow"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "use_dynamic_shifting is True"),
        (
            "scheduler/scheduler_config.json",
            {"final_sigmas_type": "sigma_min"},
            "sigmas_type is sigma_min",
        ),
    ],
)
def test_what_would_mean_something_else_is_refused(
    file: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    directory = tmp_path / "pipeline"
    shutil.copytree(small_wan(), directory)
    change(directory / file, changes)
    with pytest.raises(BenchError, match=message):
        wan_chain(source=directory)


def test_another_familys_pipeline_says_what_to_set() -> None:
    with pytest.raises(BenchError, match=r"family=wan --set model\.solver=flow_sde --set model\.frames"):
        ImageChain.load(ModelConfig(path=wan_dir()), CPU)
    with pytest.raises(ValueError, match="family wan needs `frames`"):
        ModelConfig(family="wan")


def test_every_target_has_an_adapter() -> None:
    names = [name for name, _ in wan_chain().network.named_parameters() if ".lora_" in name]
    assert all(any(f".{target}." in name for name in names) for target in TARGETS)
