"""The shipped weights load as genuine directories and do what the documentation says."""

import json
import stat
from collections.abc import Iterator

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTokenizer

from bench.data.prompts.emoji import concepts, heldout_prompts, train_prompts
from bench.models.embedded import CLIP_DIR, FLOW_DIR, SD_DIR, VIDEO_DIR, WEIGHTS_DIR
from scripts.embedded.evaluate import Judge, load_pipeline, sample
from scripts.embedded.export import TOKENIZER_FILES
from scripts.embedded.placement import placement_words
from scripts.embedded.tokenizer import MAX_LENGTH


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return load_pipeline(SD_DIR)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(CLIP_DIR)


def test_weights_total_at_most_12_megabytes_and_10_for_video_and_for_flow_in_half_precision() -> None:
    files = [path for path in WEIGHTS_DIR.rglob("*.safetensors") if not path.parent.is_symlink()]
    files = [path for path in files if not path.is_symlink()]
    of_video, of_flow = ([path for path in files if where in path.parents] for where in (VIDEO_DIR, FLOW_DIR))
    assert (len(files), len(of_video), len(of_flow)) == (8, 1, 3)
    assert sum(path.stat().st_size for path in {*files} - {*of_video, *of_flow}) <= 12e6
    assert sum(path.stat().st_size for path in of_video) <= 10 * 2**20
    assert sum(path.stat().st_size for path in of_flow) <= 10e6
    for path in files:
        with safe_open(path, "pt") as weights:
            assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_files_are_readable_by_everyone_and_none_is_a_stray() -> None:
    configs = ("model_index.json", "config.json", "scheduler_config.json", "preprocessor_config.json")
    expected = {*configs, *TOKENIZER_FILES, "LICENSES.md"}
    for path in WEIGHTS_DIR.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444, path
            assert path.name in expected or path.suffix == ".safetensors", path


def test_text_encoder_keys_have_the_prefix_that_transformers_4_needs() -> None:
    with safe_open(SD_DIR / "text_encoder" / "model.safetensors", "pt") as weights:
        assert all(key.startswith("text_model.") for key in weights.keys())  # noqa: SIM118


@pytest.mark.parametrize("name", ["sd/text_encoder", "clip"])
def test_end_of_text_token_is_explicit(name: str) -> None:
    config = json.loads((WEIGHTS_DIR / name / "config.json").read_text())
    tokenizer = CLIPTokenizer.from_pretrained(SD_DIR / "tokenizer" if name != "clip" else CLIP_DIR)
    text_config = config["text_config"] if name == "clip" else config
    assert text_config["eos_token_id"] == tokenizer.eos_token_id == text_config["vocab_size"] - 1


def test_scheduler_is_stable_diffusions(pipeline: StableDiffusionPipeline) -> None:
    config = pipeline.scheduler.config
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert (config.clip_sample, config.set_alpha_to_one, config.steps_offset) == (False, False, 1)
    assert config.prediction_type == "epsilon"


@pytest.mark.slow
def test_every_prompt_fits_into_the_text_encoder(judge: Judge, pipeline: StableDiffusionPipeline) -> None:
    texts = (
        train_prompts() + heldout_prompts() + [f"a {w} {c}" for w in placement_words() for c in concepts()]
    )
    assert max(len(ids) for ids in judge.tokenizer(texts).input_ids) <= MAX_LENGTH
    assert judge.tokenizer(texts[:200]).input_ids == pipeline.tokenizer(texts[:200]).input_ids


@pytest.mark.slow
def test_reward_prefers_the_own_prompt_of_samples(pipeline: StableDiffusionPipeline, judge: Judge) -> None:
    texts = train_prompts()[:12]
    with torch.no_grad():
        x = sample(pipeline, texts, guidance=4.0, steps=10)
        similarity = judge.pictures(x) @ judge.captions(texts).T
    assert x.shape == (12, 3, 64, 64)
    right = float((similarity.argmax(1) == torch.arange(12)).float().mean())
    assert right >= 0.75


def test_reward_is_differentiable_through_the_decoder(
    pipeline: StableDiffusionPipeline, judge: Judge
) -> None:
    latents = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    x = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    (judge.pictures(x) * judge.captions(["a red apple"])).sum().backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()
    assert float(latents.grad.norm()) > 0
