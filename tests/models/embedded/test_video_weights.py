"""The shipped video model loads as a genuine directory, and its clips show what their captions say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, TextToVideoSDPipeline
from torch import Tensor

from bench.data.prompts.emoji_motion import (
    FRAMES,
    MOTIONS,
    heldout_clip_prompts,
    motion_of,
    train_clip_prompts,
)
from bench.models.embedded import CLIP_DIR, SD_DIR, VIDEO_DIR
from rewards.motion import MotionConfig, MotionReward
from scripts.embedded.clips import SHOWN, load_video_pipeline, sample_clips
from scripts.embedded.evaluate import Judge
from scripts.embedded.export import make_video_scheduler
from scripts.embedded.tokenizer import MAX_LENGTH

pytestmark = pytest.mark.slow

STEPS = 12  # of sampling: enough for what is to be seen


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> TextToVideoSDPipeline:
    return load_video_pipeline(VIDEO_DIR)


@pytest.fixture(scope="module")
def clips(pipeline: TextToVideoSDPipeline) -> Tensor:
    return sample_clips(pipeline, SHOWN, 4.0, steps=STEPS)


def test_parts_that_are_the_image_models_are_links_to_them() -> None:
    for part in ("vae", "text_encoder", "tokenizer"):
        assert (VIDEO_DIR / part).readlink() == Path(f"../sd/{part}")
        assert (VIDEO_DIR / part).resolve() == (SD_DIR / part).resolve()


def test_the_scheduler_is_the_one_of_the_recipe(pipeline: TextToVideoSDPipeline) -> None:
    scheduler, recipe = pipeline.scheduler, make_video_scheduler()
    assert isinstance(scheduler, DDIMScheduler)
    assert torch.equal(scheduler.alphas_cumprod, recipe.alphas_cumprod)
    for key in ("prediction_type", "timestep_spacing", "set_alpha_to_one", "clip_sample"):
        assert scheduler.config[key] == recipe.config[key]


def test_no_prompt_is_cut_off(pipeline: TextToVideoSDPipeline) -> None:
    longest = max((*train_clip_prompts(), *heldout_clip_prompts()), key=len)
    assert len(pipeline.tokenizer(longest).input_ids) <= MAX_LENGTH


def test_clips_show_the_objects_of_their_captions(clips: Tensor) -> None:
    judge = Judge.load(CLIP_DIR)
    texts = list(SHOWN)
    right = torch.stack([judge.scores(clips[:, f] * 2 - 1, texts) for f in range(FRAMES)]).mean()
    wrong = torch.stack(
        [judge.scores(clips[:, f] * 2 - 1, texts[1:] + texts[:1]) for f in range(FRAMES)]
    ).mean()
    assert right > 0.5
    assert right - wrong > 0.4


def test_clips_are_steady_and_things_that_are_to_move_do(clips: Tensor) -> None:
    jump = clips[:, 1:-1] - (clips[:, :-2] + clips[:, 2:]) / 2
    assert jump.pow(2).mean().sqrt() * 255 < 30  # real clips: 20; frames without regard to one another: 44
    reward = MotionReward(MotionConfig(), torch.device("cpu"))
    assert reward.motion(clips)[:4, :2].norm(dim=1).mean() > 0.5
    assert reward.score(clips[:4], SHOWN[:4]).min() > 0.5  # left, right, up and down as said


def test_most_held_out_clips_move_as_their_captions_say(pipeline: TextToVideoSDPipeline) -> None:
    texts = heldout_clip_prompts()[:16]
    reward = MotionReward(MotionConfig(), torch.device("cpu"))
    clips = sample_clips(pipeline, texts, 1.0, steps=STEPS)
    choices = torch.stack([reward.score(clips, [words] * len(clips)) for words in MOTIONS])
    wanted = torch.tensor([list(MOTIONS).index(str(motion_of(text))) for text in texts])
    right = float((choices.argmax(dim=0) == wanted).float().mean())
    assert right > 0.125 + 4 * (0.125 * 0.875 / len(texts)) ** 0.5  # chance, and four standard errors
