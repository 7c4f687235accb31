"""What surrounds a video model: rewards by frame, drawn frames, evaluation, planning and its profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.base.media import read
from bench.data.advice import fetch_flag
from bench.engine.kept_graphs import Keep
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import normal
from bench.engine.reward import Reward, media_of, scores
from bench.experiment.ingredients import reward_ingredient
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.measure.cost.simulate import Simulator
from bench.models.config import ModelConfig
from bench.models.sizes import architecture_name
from bench.run import score
from bench.run.evaluate import DIVERSITY, evaluate
from rewards.colourfulness import ColourfulnessConfig, ColourfulnessReward
from rewards.weighted_sum import Summand, WeightedConfig, WeightedReward
from tests.measure.cost.cells import planned
from tests.support.running import cell, here
from tests.support.toy import ToyChain
from tests.support.toys import PROMPTS, Pattern, batch_of, engine_of, flat, gradient
from tests.support.videos import FRAMES, small_video_architecture, video_chain

CPU = torch.device("cpu")
SMALL = ("model.steps=3", "model.decode_chunk=1", "model.resolution=16", "eval.rewards=[]")


class Motion(Reward):
    """Mean change from one frame to the next."""

    media = "video"
    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "a number"

    def __init__(self) -> None:
        """Nothing to load."""

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of videos."""
        return media.diff(dim=1).abs().flatten(1).mean(1)


class Brightness(Motion):
    """Mean pixel of an image."""

    media = "image"

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of images, weighted by their prompts' lengths."""
        assert media.ndim == 4 and len(media) == len(prompts)
        return media.flatten(1).mean(1) * torch.tensor([float(len(p)) for p in prompts])

    def image_features(self, media: Tensor) -> Tensor:
        """[B, 3]."""
        return torch.nn.functional.normalize(media.flatten(2).mean(2), dim=1)


def videos(count: int = 2) -> Tensor:
    """[B, 3, 3, 4, 4]."""
    return torch.rand(count, FRAMES, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_an_image_reward_of_a_video_is_the_mean_over_its_frames() -> None:
    reward, media = Brightness(), videos()
    found = scores(reward, media, PROMPTS[:2])
    by_frame = torch.stack([reward.score(media[:, k], PROMPTS[:2]) for k in range(FRAMES)])
    torch.testing.assert_close(found, by_frame.mean(0))
    assert torch.equal(scores(reward, media[:, 0], PROMPTS[:2]), by_frame[0])


def test_a_reward_of_videos_sees_whole_videos_and_refuses_pictures() -> None:
    assert scores(Motion(), videos(), PROMPTS[:2]).shape == (2,)
    with pytest.raises(BenchError, match="reward of videos cannot score pictures"):
        scores(Motion(), videos()[:, 0], PROMPTS[:2])


def test_a_sum_with_a_term_of_videos_takes_videos_and_its_other_terms_the_mean_over_frames() -> None:
    config = WeightedConfig(terms=(Summand(name="colourfulness", weight=2.0),))
    reward = WeightedReward(config, CPU)
    assert media_of(WeightedReward, config) == reward.media == "image"
    reward.terms.append((3.0, Motion()))
    reward.media = "video"
    media = videos()
    colour = scores(ColourfulnessReward(ColourfulnessConfig(), CPU), media, PROMPTS[:2])
    expected = 2 * colour + 3 * Motion().score(media, PROMPTS[:2])
    torch.testing.assert_close(scores(reward, media, PROMPTS[:2]), expected)


def drawn(k: int | None) -> Plan:
    """One first-order step, rewarded on k frames."""
    return Plan((Segment(Kind.SKIP, 0, 1), Segment(Kind.FO, 1, 2)), (0.0, 0.0), frames=k)


def frame_gradients(k: int | None, batches: int) -> Tensor:
    """Gradients [batches, d] of batches that differ by the frames alone."""
    chain = video_chain(steps=2, guidance=1.0)

    def draw(keys: Any, *rest: Any) -> Tensor:
        return normal([(*key[:2], 0, *key[3:]) for key in keys], *rest)

    engine = engine_of(chain, Brightness(), micro_batch=2, draw=draw)
    found = []
    for step in range(batches):
        trajectory = engine.rollout([drawn(k)] * 2, batch_of(2, step))
        engine.gradient(trajectory, trajectory.signed)
        found.append(gradient(chain))
    return torch.stack(found)


@pytest.mark.slow
def test_one_drawn_frame_has_the_gradient_of_all_frames_as_its_mean() -> None:
    """Within 3 standard errors along the true gradient; all three frames at once are the whole video."""
    whole = frame_gradients(None, 1)[0]
    torch.testing.assert_close(frame_gradients(FRAMES, 1)[0], whole, rtol=1e-4, atol=1e-6)
    single = frame_gradients(1, 24) @ whole / whole.norm() ** 2
    error = float(single.std() / 24**0.5)
    assert error > 0.001
    assert abs(float(single.mean()) - 1) < 3 * error


@pytest.mark.slow
def test_frames_are_drawn_for_each_sample_whatever_the_micro_batch() -> None:
    chain = video_chain(steps=2)
    found = []
    for size in (1, 4):
        engine = engine_of(chain, Brightness(), micro_batch=size)
        micros = engine.rollout([drawn(1)] * 4, batch_of(4)).micros
        assert all(m.frames is not None and m.frames.shape == (len(m.index), 1) for m in micros)
        found.append(torch.cat([m.frames for m in micros if m.frames is not None]))
    assert torch.equal(*found)
    assert len(found[0].unique()) > 1


@pytest.mark.slow
@pytest.mark.parametrize("graphs", ["staged", "auto", "joint"])
def test_drawn_frames_alone_are_decoded(graphs: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = video_chain(steps=2)
    engine = engine_of(chain, Pattern(), micro_batch=2, graphs=graphs)
    decoded: list[int] = []
    plain = chain.vae.decode
    monkeypatch.setattr(chain.vae, "decode", lambda x: decoded.append(len(x)) or plain(x))
    trajectory = engine.rollout([drawn(2)] * 2, batch_of(2))
    engine.gradient(trajectory, trajectory.signed)
    assert decoded == [2 * 2]
    assert bool(flat([p.grad for p in chain.parameters() if p.grad is not None]).isfinite().all())


def test_pictures_have_no_frames_to_draw() -> None:
    engine = engine_of(ToyChain(2, 2))
    with pytest.raises(BenchError, match="see 1 frames, and the model makes pictures"):
        engine.rollout([drawn(1)], batch_of(1))


@pytest.mark.slow
def test_videos_are_evaluated_with_diversity_and_kept_whole() -> None:
    chain = video_chain(steps=2)
    for rewards, features in (({"motion": Motion()}, "pixels"), ({"bright": Brightness()}, "bright")):
        found = evaluate(chain, rewards, PROMPTS[:2], seed=0, batch=3, images_per_prompt=2, keep=1)
        assert found.images.shape == (1, FRAMES, 3, 16, 16) and found.images.dtype == torch.uint8
        diverse = [row for row in found.rows if row["reward"] == DIVERSITY]
        assert len(diverse) == 4 and all(row["score"] > 0 and row["features"] == features for row in diverse)


def test_evaluating_pictures_by_all_rewards_leaves_those_of_videos_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piece = reward_ingredient("colourfulness")
    assert score._absent(piece, videos=False, texts=()) is None
    monkeypatch.setattr(ColourfulnessReward, "media", "video")
    assert score._absent(piece, videos=False, texts=()) == "it scores videos"
    assert score._absent(piece, videos=True, texts=()) is None


def cells(*settings: str, methods: str = "vader", model: str = "modelscope", **options: Any) -> Any:
    """A plan's cells."""
    found = build(Options(methods=methods, model=model, settings=settings, **options))
    return resolve_all(found.combinations, fetch=False)


def test_settings_that_do_not_fit_pictures_or_videos_are_refused_while_planning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BenchError, match=r"vader.frames: the reward is to see 2.*makes pictures"):
        cells("vader.frames=2", model="tiny")
    with pytest.raises(BenchError, match=r"vader.frames: the reward is to see 17.*videos of 16 frames"):
        cells("vader.frames=17", reward="colourfulness")
    assert cells(reward="colourfulness", prompts="hand")
    monkeypatch.setattr(ColourfulnessReward, "media", "video")
    with pytest.raises(BenchError, match=r"reward 'colourfulness' scores videos.*makes pictures"):
        cells(model="tiny", reward="colourfulness")
    for reward in ("colourfulness", "colourfulness:0.5,colourfulness:0.5"):
        with pytest.raises(BenchError, match=r"see 1, .* scores whole videos: --set vader.frames=all"):
            cells(reward=reward, prompts="hand")
        assert cells("vader.frames=all", reward=reward, prompts="hand")


def test_all_frames_is_the_cell_from_before_there_were_frames() -> None:
    assert [c.id for c in cells(model="tiny")] == [c.id for c in cells("vader.frames=all", model="tiny")]


def test_a_video_model_can_have_its_unet_from_another_repository() -> None:
    config = cells(reward="colourfulness")[0].config.model.config
    changed = config.model_copy(update={"unet_source": "hub:adamdad/videocrafterv2_diffusers"})
    needs = changed.needs("model", "model")
    assert [(n.name, n.setting) for n in needs] == [
        ("model", "model.path"),
        ("model unet", "model.unet_path"),
    ]
    assert (architecture_name(config), architecture_name(changed)) == ("modelscope", "videocrafter2")
    other = ModelConfig(family="video", frames=24, source="hub:cerspense/zeroscope_v2_576w")
    assert fetch_flag(needs[1]) == "--model videocrafter2"
    assert fetch_flag(other.needs("model", "model")[0]) == "--model zeroscope"


@pytest.mark.slow
def test_a_profile_knows_frames_and_decodes_in_chunks_of_them() -> None:
    source = f"model.source=random:{small_video_architecture()}"
    peaks = {}
    for chunk in (1, 3):
        found = planned(
            "modelscope",
            "vader",
            source,
            *SMALL[:1],
            f"model.decode_chunk={chunk}",
            *SMALL[2:],
            "model.frames=3",
            "vader.frames=all",
            "train.reward_chunk=1",
            reward="colourfulness",
        )
        usage = Simulator()(found.cells[0].config)
        assert usage.resolution == 16
        peaks[chunk] = usage.of("activations vae")
    assert peaks[1] <= peaks[3]


@pytest.mark.slow
def test_a_run_on_videos_leaves_filmstrips_gifs_a_lora_and_a_report_with_its_grid(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        f"model: {{family: video, source: 'random:{small_video_architecture()}', frames: 3, steps: 3,\n"
        "  guidance: 2.0, decode_chunk: 1, lora: {rank: 2}}\n"
        "train: {steps: 2, micro_batch: 1}\n"
        "eval: {prompts: 2, images_per_prompt: 2, batch: 2, samples: 2}\n"
    )
    out = tmp_path / "out"
    asked = ("--methods", "rlr,vader", "--prompts", "hand", "--reward", "colourfulness")
    settings = ("--set", "rlr.h=1", "--set", "vader.frames=1")
    found = here("run", "--in-process", "--model", file, "--out", out, *asked, *settings)
    assert found.returncode == 0, found.stderr
    for name in ("base", "rlr", "vader"):
        samples = sorted(cell(out, name).path.glob("samples/*/*"))
        assert {path.name for path in samples} == {"00.png", "00.gif", "01.png", "01.gif"}
        assert read(samples[-1].with_suffix(".png")).shape == (3, 3, 16, 16)
    assert list((out / "report").rglob("*grid*.png"))
    trained, drawn_to = cell(out, "vader").path, tmp_path / "drawn"
    drawn = here("sample", "--prompt", "a fox", "--lora", trained, "--model", file, "--out", drawn_to)
    assert drawn.returncode == 0, drawn.stderr
    scored = here("evaluate", "--images", drawn_to, "--rewards", "colourfulness")
    assert scored.returncode == 0 and "colourfulness" in scored.stdout, scored.stderr
