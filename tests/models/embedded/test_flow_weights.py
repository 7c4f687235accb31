"""The shipped flow model loads in plain diffusers, equals this package's chain, and draws as it is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor

from bench.data.prompts.emoji import heldout_prompts
from bench.engine.batch import Batch, Perturbation
from bench.engine.plan import Kind, Plan, Segment
from bench.models.embedded import CLIP_DIR, FLOW_DIR, SD_DIR
from rewards.clip import ClipConfig, ClipReward
from scripts.embedded.evaluate import Judge
from scripts.embedded.flow_samples import CPU, load_chain, sample_chain
from scripts.embedded.sheet import SHOWN
from tests.models.test_image import picture
from tests.support.toys import engine_of, gradient

pytestmark = pytest.mark.slow

PROMPTS = list(SHOWN[:4])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusion3Pipeline:
    found = StableDiffusion3Pipeline.from_pretrained(
        FLOW_DIR, torch_dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    found.set_progress_bar_config(disable=True)
    return found


def diffusers_pictures(pipeline: Any, x: Tensor, **settings: Any) -> Tensor:
    images: Any = pipeline(PROMPTS[: len(x)], latents=x, num_inference_steps=4, output_type="pt", **settings)
    return images.images


def test_parts_that_are_the_image_models_are_links_to_them() -> None:
    for part, of in (("tokenizer", "tokenizer"), ("tokenizer_2", "tokenizer")):
        assert (FLOW_DIR / part).readlink() == Path(f"../sd/{of}")
    weights = FLOW_DIR / "vae" / "diffusion_pytorch_model.safetensors"
    assert weights.is_symlink()
    assert weights.resolve() == (SD_DIR / "vae" / weights.name).resolve()


def test_what_it_adds_is_at_most_10_megabytes() -> None:
    own = [path for path in FLOW_DIR.rglob("*") if path.is_file() and not path.is_symlink()]
    own = [path for path in own if not path.parent.is_symlink()]
    assert sum(path.stat().st_size for path in own) <= 10e6


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_chain_gives_the_pictures_of_plain_diffusers(
    pipeline: StableDiffusion3Pipeline, guidance: float
) -> None:
    assert isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    chain = load_chain(FLOW_DIR, 4, guidance)
    x = torch.randn(2, *chain.latent_shape, generator=torch.Generator().manual_seed(0))
    theirs = diffusers_pictures(pipeline, x, guidance_scale=guidance)
    ours = picture(chain, x, PROMPTS[:2])
    assert float(theirs.std()) > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_how_many_zeros_stand_for_t5_hardly_matters(pipeline: StableDiffusion3Pipeline) -> None:
    """They are 256 or as many as a text has tokens, by diffusers' version."""
    x = torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    many = diffusers_pictures(pipeline, x, guidance_scale=1.0)
    few = diffusers_pictures(pipeline, x, guidance_scale=1.0, max_sequence_length=24)
    others = diffusers_pictures(pipeline, x.roll(1, dims=0), guidance_scale=1.0)
    assert float((many - few).abs().mean()) < 0.2 * float((many - others).abs().mean())


def test_every_kind_of_step_runs_on_it_with_the_shipped_reward() -> None:
    chain = load_chain(FLOW_DIR, 4, 1.0, "flow_sde")
    reward = ClipReward(ClipConfig(path=CLIP_DIR), CPU)
    engine = engine_of(chain, reward, micro_batch=4)
    plan = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 3), Segment(Kind.FO, 3, 4)), (0, 0.7, 0.7, 0))
    batch = Batch(tuple(PROMPTS), 0)
    trajectory = engine.rollout([plan] * 4, batch, Perturbation(scale=1e-2))
    engine.gradient(trajectory, torch.tensor([1.0, -1.0, 1.0, -1.0]))
    found = gradient(chain)
    assert bool(found.isfinite().all())
    assert float(found.norm()) > 0


@pytest.mark.parametrize("texts", [list(SHOWN[:16]), heldout_prompts()[:16]])
def test_pictures_show_the_objects_of_their_prompts(texts: list[str]) -> None:
    judge = Judge.load(CLIP_DIR)
    pictures = sample_chain(load_chain(FLOW_DIR, 10, 1.0), texts)
    right = judge.scores(pictures, texts).mean()
    wrong = judge.scores(pictures, texts[1:] + texts[:1]).mean()
    assert float(right) > 0.6
    assert float(right - wrong) > 0.5
