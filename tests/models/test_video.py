"""The video chain: against diffusers' pipeline, perturbed row by row, and its gradients against backprop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Perturbation
from bench.engine.chain import State
from bench.engine.plan import Kind, Plan, Segment
from bench.models.config import LoraConfig, ModelConfig
from bench.models.image import ImageChain
from bench.models.random_weights import architecture, empty_parts, random_parts
from bench.models.video import VideoChain
from tests.models.test_image import latents, picture
from tests.models.test_lora import change, directions, step
from tests.support.pipelines import CPU
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, gradient
from tests.support.videos import FRAMES, plain_pipeline, small_video_architecture, video_chain, video_dir

pytestmark = pytest.mark.slow


def diffusers_video(chain: VideoChain, x: Tensor, lora: Path | None = None) -> Tensor:
    """The pipeline's own, [B, F, 3, H, W]."""
    pipeline: Any = plain_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(str(lora))
    return pipeline(
        list(PROMPTS[: len(x)]),
        latents=x,
        num_frames=x.shape[2],
        num_inference_steps=chain.steps,
        guidance_scale=chain.config.guidance,
        output_type="pt",
    ).frames


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_video_at_eta_0_is_the_pipelines(guidance: float) -> None:
    chain = video_chain(0.0, guidance=guidance)
    x = latents(chain)
    assert x.shape == (2, 4, FRAMES, 8, 8)
    ours, theirs = picture(chain, x), diffusers_video(chain, x)
    assert ours.shape == (2, FRAMES, 3, 16, 16)
    assert float(theirs.std()) > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_a_pipeline_on_disk_is_the_same_and_another_unet_can_take_its_place() -> None:
    config = ModelConfig(family="video", frames=FRAMES, path=video_dir(), steps=2)
    plain, random = VideoChain.load(config, CPU), video_chain(0.0, steps=2, guidance=7.5)
    x = latents(plain)
    torch.testing.assert_close(picture(plain, x), picture(random, x), rtol=0, atol=1e-6)
    for place in (video_dir() / "unet", video_dir()):
        other = VideoChain.load(config.model_copy(update={"unet_path": place}), CPU)
        assert torch.equal(picture(other, x), picture(plain, x))


def test_size_frames_and_channels_are_the_settings_and_the_models() -> None:
    chain = video_chain(steps=2, resolution=(16, 24), frames=5, source=small_video_architecture(8))
    assert chain.latent_shape == (8, 5, 8, 12)
    assert picture(chain, latents(chain)).shape == (2, 5, 3, 16, 24)


@pytest.mark.parametrize("chunk", [1, 2])
def test_decoding_in_chunks_of_frames_changes_neither_video_nor_gradient(chunk: int) -> None:
    whole, parts = video_chain(steps=2), video_chain(steps=2, decode_chunk=chunk)
    x = latents(whole)
    found = []
    for chain in (whole, parts):
        start = x.clone().requires_grad_()
        media = chain.decode(start)
        found.append((media, torch.autograd.grad((media * media).sum(), start)[0]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-4)


def test_chosen_frames_are_those_of_the_whole_video() -> None:
    chain = video_chain(steps=2)
    x = latents(chain)
    whole, some = chain.decode(x), chain.decode(x, torch.tensor([[2, 0], [1, 2]]))
    torch.testing.assert_close(some[0], whole[0, [2, 0]], rtol=0, atol=1e-5)
    torch.testing.assert_close(some[1], whole[1, [1, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1]])
def test_each_row_of_a_perturbed_batch_is_its_sample_alone_with_changed_parameters(
    guidance: float, rows: list[int]
) -> None:
    """Layers in space have rows [copies, B, frames], layers in time [copies, B, pixels]."""
    chain = video_chain(guidance=guidance, steps=3, lora=LoraConfig(rank=2, alpha=5))
    x, delta = latents(chain, 3), directions(chain, 3)
    before = [p.detach().clone() for p in chain.parameters()]
    with torch.no_grad():
        plain = step(chain, x, rows)
        with chain.perturbed(delta[rows]):
            together = step(chain, x, rows)
        assert torch.equal(step(chain, x, rows), plain)
        for n, row in enumerate(rows):
            change(chain, delta[row])
            torch.testing.assert_close(together[[n]], step(chain, x, [row]), rtol=1e-4, atol=1e-4)
            for p, b in zip(chain.parameters(), before, strict=True):
                p.copy_(b)
    assert float((together - plain).abs().max()) > 0.01


PLAN = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 2), Segment(Kind.FO, 2, 3)), (0, 1, 0))
ADVANTAGES = torch.tensor([1.0, -2.0])
SCALE = 0.3


def by_backpropagation(chain: VideoChain, trajectory: Any, roller: Any) -> Tensor:
    """The engine's gradient, written down directly for PLAN, with one graph for each term."""
    micro, total = trajectory.micros[0], torch.zeros(sum(p.numel() for p in chain.parameters()))

    def mean(i: int) -> Tensor:
        return chain.transition(State(micro.states[i].x.detach()), i, micro.cond, micro.eta[:, i]).mean

    reward = Pattern().score(chain.decode(mean(2)), micro.prompts).sum()
    noise = roller.noise(micro, 1, [0, 1])
    score = (ADVANTAGES.view(-1, 1, 1, 1, 1) * noise / micro.std[1] * mean(1)).sum()
    for objective in (reward, score):
        grads = torch.autograd.grad(objective, chain.parameters())
        total += torch.cat([g.flatten() for g in grads])
    return (total + ADVANTAGES / SCALE @ roller.z(micro, 0, [0, 1])) / 2


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"offload": True}])
def test_first_half_and_zeroth_order_agree_with_full_backpropagation(options: dict[str, Any]) -> None:
    chain = video_chain(steps=3, decode_chunk=1, **options)
    engine = engine_of(chain, Pattern(), micro_batch=2, offload=chain.config.offload)
    trajectory = engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=SCALE), reward_grad=True)
    engine.gradient(trajectory, ADVANTAGES)
    expected = by_backpropagation(chain, trajectory, engine.roller)
    assert float((gradient(chain) - expected).norm() / expected.norm()) < 1e-4


def test_perturbed_step_of_the_rollout_is_the_one_of_changed_parameters() -> None:
    chain = video_chain(steps=3)
    engine = engine_of(chain, Pattern(), micro_batch=2)
    trajectory = engine.rollout([PLAN] * 2, batch_of(2), Perturbation(scale=SCALE), reward_grad=True)
    micro = trajectory.micros[0]
    z = engine.roller.z(micro, 0, [0, 1])
    change(chain, SCALE * z[1])
    with torch.no_grad():
        alone = step_of(chain, micro, 1)
    torch.testing.assert_close(micro.states[1].x[[1]], alone, rtol=1e-4, atol=1e-4)


def step_of(chain: VideoChain, micro: Any, row: int) -> Tensor:
    """Step 0 of one row."""
    pick = torch.tensor([row])
    return chain.transition(State(micro.states[0].x[pick]), 0, micro.cond.select(pick), torch.zeros(1)).mean


def test_checkpointing_runs_layers_again_and_keeps_less() -> None:
    kept = []
    for again in (False, True):
        chain, size = video_chain(steps=2, gradient_checkpointing=again), [0]

        def keep(t: Tensor, size: list[int] = size) -> Tensor:
            size[0] += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            step(chain, latents(chain), [0, 1])
        kept.append(size[0])
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("alpha", [None, pytest.param(6.0, marks=pytest.mark.slow)])
def test_saved_lora_gives_the_same_video_in_diffusers_and_loads_again(
    alpha: float | None, tmp_path: Path
) -> None:
    chain = video_chain(steps=2, lora=LoraConfig(rank=2, alpha=alpha))
    chain.save_lora(tmp_path / "lora")
    x = latents(chain)
    theirs = diffusers_video(chain, x, tmp_path / "lora")
    torch.testing.assert_close(picture(chain, x), theirs, rtol=0, atol=2e-4)
    assert float((theirs - diffusers_video(chain, x)).abs().max()) > 0.01
    other = video_chain(0.1, steps=2, lora=LoraConfig(rank=3))
    other.load_lora(tmp_path / "lora")
    assert torch.equal(picture(other, x), picture(chain, x))


@pytest.mark.parametrize("name", ["videocrafter2", "modelscope", "zeroscope"])
def test_shipped_video_architectures_have_the_published_sizes(name: str) -> None:
    sizes = {
        part: sum(p.numel() for p in m.parameters()) for part, m in empty_parts(architecture(name)).items()
    }
    unet = 1_413_284_420 if name == "videocrafter2" else 1_411_233_860  # it is told frames per second
    assert sizes == {"unet": unet, "vae": 83_653_863, "text_encoder": 340_387_840}


def test_a_video_needs_frames_and_a_picture_has_none() -> None:
    with pytest.raises(ValueError, match="family video needs `frames`"):
        ModelConfig(family="video", path=video_dir())
    with pytest.raises(ValueError, match="family image makes pictures"):
        ModelConfig(frames=4)


def test_a_video_pipeline_loaded_as_an_image_model_is_told_apart() -> None:
    with pytest.raises(BenchError, match=r"TextToVideoSDPipeline.*\n.*model\.family=video"):
        ImageChain.load(ModelConfig(path=video_dir()), CPU)


def test_half_precision_and_channels_last_work_on_videos() -> None:
    plain = video_chain(steps=2, dtype="bfloat16", channels_last=True)
    media = picture(plain, latents(plain))
    assert media.dtype == torch.float32 and bool(media.isfinite().all())


def test_frames_per_second_are_added_to_the_timestep_and_come_from_the_files(tmp_path: Path) -> None:
    source = small_video_architecture(fps=True)
    random, slower = (video_chain(0.0, source, steps=2, fps=fps) for fps in (24, 8))
    x = latents(random)
    assert float((picture(random, x) - picture(slower, x)).abs().max()) > 0.01
    unet = random_parts(source, torch.float32)["unet"]
    unet.save_pretrained(tmp_path / "unet")
    settings = {"family": "video", "frames": FRAMES, "path": video_dir(), "unet_path": tmp_path}
    config = ModelConfig(**settings, steps=2, guidance=2.0, fps=24, lora=LoraConfig(rank=2))
    read = VideoChain.load(config, CPU)
    with torch.no_grad():
        for p in read.parameters():
            p.zero_()
    torch.testing.assert_close(picture(read, x), picture(video_chain(0.0, source, steps=2, fps=24), x))


def test_a_unet_whose_files_lack_weights_is_refused(tmp_path: Path) -> None:
    unet = random_parts(small_video_architecture(), torch.float32)["unet"]
    unet.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if key != "conv_in.weight"}, file)
    config = ModelConfig(family="video", frames=FRAMES, path=video_dir(), unet_path=tmp_path)
    with pytest.raises(BenchError, match=r"lacks conv_in\.weight"):
        VideoChain.load(config, CPU)


def test_frames_per_second_are_asked_for_and_refused_where_they_mean_nothing() -> None:
    with pytest.raises(BenchError, match="is told frames per second"):
        video_chain(source=small_video_architecture(fps=True))
    with pytest.raises(BenchError, match="is not told frames per second"):
        video_chain(fps=8)
