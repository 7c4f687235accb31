"""Action, objects and X-CLIP: gradients, agreement with transformers' own path, and what users get wrong."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer, VideoMAEForVideoClassification, XCLIPModel, YolosForObjectDetection
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.media import to_pil
from bench.data.need import needs_of
from rewards.shared.frames import with_frames
from rewards.shared.yolos_image import DetectorImages
from tests.support.vader_scorers import (
    ACTIONS,
    CLASSES,
    CPU,
    FRAMES,
    NAMES,
    PROMPTS,
    VIDEO,
    batch,
    build,
    load,
)

CASES = [
    ("action", {}),
    ("action", {"action": "Flipping pancake"}),
    ("objects", {}),
    ("objects", {"over": "mean", "threshold": 0.0, "objects": list(CLASSES), "present": True}),
    ("xclip", {}),
]


TOLERANCE = {"action": 2e-2, "objects": 1e-2, "xclip": 2e-3}  # a pixel rounded to 8 bits moves scores so far


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
@pytest.mark.parametrize("frames", [FRAMES, 7, 3])
def test_the_gradient_is_that_of_finite_differences_in_float64(built, name, settings, frames):
    reward = load(name, built[name], **settings)
    reward.model.double()
    media, prompts = batch(name, 2, frames)
    media = media.double().clamp(0.1, 0.9).requires_grad_()
    (slope,) = torch.autograd.grad(reward.score(media, prompts).sum(), media)
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    direction = torch.randn(media.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = direction + slope / slope.norm() * direction.norm()  # so that the rise is no small difference
    with torch.no_grad():
        step = 1e-6 * direction
        rise = (reward.score(media + step, prompts) - reward.score(media - step, prompts)).sum()
    assert (slope * direction).sum().item() == pytest.approx(rise.item() / 2e-6, rel=1e-4)


def pil_pixels(name: str, directory: Path, media: Tensor) -> Tensor:
    """What transformers' own processor, on Pillow, makes of 8-bit pictures or videos."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "objects":
            processor: Any = YolosImageProcessorPil.from_pretrained(directory)
            return processor([to_pil(x) for x in media], return_tensors="pt")["pixel_values"]
        processor = VideoMAEImageProcessorPil.from_pretrained(directory)
        videos: list[list[Image.Image]] = [[to_pil(x) for x in frames] for frames in media]
        return processor(videos, return_tensors="pt")["pixel_values"]


def reference(name: str, directory: Path, media: Tensor, prompts: list[str]) -> Tensor:
    """Scores by transformers' own processor and model."""
    pixels = pil_pixels(name, directory, media)
    with torch.no_grad():
        if name == "action":
            logits = VideoMAEForVideoClassification.from_pretrained(directory).eval()(pixels).logits
            wanted = torch.tensor([ACTIONS.index(a) for a in ("playing guitar", "jogging", "guitar")])
            return -torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        if name == "objects":
            logits = YolosForObjectDetection.from_pretrained(directory).eval()(pixels).logits
            return 1 - logits.softmax(-1)[..., CLASSES.index("book")].amax(1)
        tokens = CLIPTokenizer.from_pretrained(directory)(prompts, padding=True, return_tensors="pt")
        model: Any = XCLIPModel.from_pretrained(directory).eval()
        found = model(pixel_values=pixels, **tokens)
        return found.logits_per_video.diagonal() / model.logit_scale.exp()


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 52), (96, 70)])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_transformers_own_path_within_2_levels_of_rounding(built, name, size):
    media, prompts = batch(name, 3, FRAMES, *size)
    reward = load(name, built[name])
    ours = reward.images(media) if name == "objects" else reward.preprocessor(media.flatten(0, 1))
    theirs = pil_pixels(name, built[name], media)
    levels = 255 * (ours.reshape(theirs.shape) - theirs) * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    untouched = size == ((64, 64) if name == "objects" else (32, 32))
    assert levels.abs().max() < (1e-3 if untouched else 2)
    score, expected = reward.score(media, prompts), reference(name, built[name], media, prompts)
    assert torch.allclose(score, expected, atol=1e-5 if untouched else TOLERANCE[name])
    assert expected.std() > 1e-3


@pytest.mark.slow
def test_over_mean_is_vaders_confidence_of_each_frame(built):
    media, prompts = batch("objects", 6)
    processor = YolosImageProcessorPil.from_pretrained(built["objects"])
    detector = load("objects", built["objects"], size=None)
    outputs = detector.model(pixel_values=detector.images(media))
    counts = list[int]()
    for wanted, threshold in ((c, t) for c in CLASSES for t in (0.2, 0.4, 0.6)):
        settings: dict[str, Any] = {"objects": [wanted], "threshold": threshold}
        reward = load("objects", built["objects"], over="mean", size=None, **settings)
        sizes = [(64, 64)] * len(media)
        found = processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
        for score, result in zip(reward.score(media, prompts), found, strict=True):
            mine = result["scores"][result["labels"] == CLASSES.index(wanted)]
            expected = 1 - mine.mean().item() if len(mine) else 1.0
            assert score.item() == pytest.approx(expected, abs=1e-6)
            counts.append(len(mine))
    assert min(counts) == 0 and max(counts) > 1


def test_objects_that_should_be_there_score_the_confidence(built):
    media, prompts = batch("objects")
    scores = [load("objects", built["objects"], present=p).score(media, prompts) for p in (False, True)]
    assert torch.allclose(scores[0] + scores[1], torch.ones(3))
    several = load("objects", built["objects"], objects=["book", "PERSON"], present=True)
    assert (several.score(media, prompts) >= scores[1] - 1e-6).all()


@pytest.mark.parametrize("height", [16, 33, 64, 65, 100, 300, 512, 800])
@pytest.mark.parametrize("width", [16, 47, 64, 90, 257, 512, 1000])
@pytest.mark.parametrize(("shortest", "longest"), [(64, 128), (512, 1333), (800, 1333)])
def test_a_detectors_pictures_have_the_size_that_transformers_gives_them(height, width, shortest, longest):
    from transformers.models.yolos.image_processing_pil_yolos import get_size_with_aspect_ratio_yolos

    theirs = get_size_with_aspect_ratio_yolos((height, width), shortest, longest)
    ours = DetectorImages(shortest, longest).resized(height, width)
    assert ours == tuple(max(16, side) for side in theirs)


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_their_batch_or_the_chunk(built, name):
    media, prompts = batch(name, 4)
    reward = load(name, built[name], chunk=3)
    whole = reward.score(media, prompts)
    alone = torch.cat([reward.score(media[i : i + 1], prompts[i : i + 1]) for i in range(4)])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert whole.std() > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "half"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_scores_in_float32_close_to_full_and_has_its_gradient(built, name, dtype):
    media, prompts = batch(name)
    media.requires_grad_()
    full, half = load(name, built[name]), load(name, built[name], dtype=dtype)
    scores = half.score(media, prompts)
    assert scores.dtype == torch.float32
    assert (scores - full.score(media, prompts)).abs().max() < (0.02 if dtype == "float16" else 0.1)
    slope, exact = (torch.autograd.grad(r.score(media, prompts).sum(), media)[0] for r in (half, full))
    cosine = torch.cosine_similarity(slope.flatten(1), exact.flatten(1), dim=1)
    assert (cosine > (0.99 if dtype == "float16" else 0.8)).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_frozen_and_media_is_declared(built, name):
    reward = load(name, built[name])
    assert not any(p.requires_grad for p in reward.model.parameters())
    assert not any(m.training for m in reward.model.modules())
    assert type(reward).media == ("video" if name in VIDEO else "image")
    assert registry.load("reward", "clip").media == "image"


def test_frames_are_picked_or_blended_evenly() -> None:
    video = torch.arange(5.0).reshape(1, 5, 1)
    assert with_frames(video, 5) is video
    assert with_frames(video, 3).flatten().tolist() == [0, 2, 4]
    assert with_frames(video, 9).flatten().tolist() == [n / 2 for n in range(9)]
    assert with_frames(video[:, :1], 3).flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", VIDEO)
def test_a_video_reward_refuses_images_and_wrong_numbers_of_prompts(built, name):
    media, prompts = batch(name)
    reward = load(name, built[name])
    with pytest.raises(BenchError, match=rf"reward {name}: expected videos \[B, F, 3, H, W\], got \[3, 3, "):
        reward.score(media[:, 0], prompts)
    with pytest.raises(BenchError, match=rf"reward {name}: 3 videos but 2 prompts"):
        reward.score(media, prompts[:2])


def test_the_action_is_the_longest_label_in_the_prompt_unless_it_is_named(built):
    media, _ = batch("action", 1)
    null, named = load("action", built["action"]), load("action", built["action"], action="playing guitar")
    assert torch.equal(null.score(media, PROMPTS[:1]), named.score(media, ["a banana"]))
    assert null.score(media, PROMPTS[:1]) <= 0
    with pytest.raises(BenchError, match=r"no label of the classifier is part of the prompt 'a banana'"):
        null.score(media, ["a banana"])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("action", {"action": "joging"}, r"action\.action: .* 'joging'\. Did you mean 'jogging'\?"),
        ("objects", {"objects": ["bok"]}, r"objects\.objects: .* 'bok'\. Did you mean 'book'\?"),
    ],
)
def test_a_label_that_the_model_does_not_know_is_named(built, name, settings, message):
    with pytest.raises(BenchError, match=message):
        load(name, built[name], **settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "not a whole .* checkpoint: it lacks "),
        ("shape", r"not of the same .* checkpoint: .* is \[7\], not "),
        ("zeros", "is not a usable .* checkpoint; .* fetch it again"),
        ("gone", "is not a usable .* checkpoint"),
        ("processor", r"preprocessor_config\.json: (not there|cannot be used for)"),
        ("no processor", r"preprocessor_config\.json: not there"),
    ],
)
def test_damaged_weights_are_named(built, tmp_path, name, damage, message):
    directory = shutil.copytree(built[name], tmp_path / "weights")
    file = directory / "model.safetensors"
    state = load_file(file)
    key = next(k for k in sorted(state) if k.endswith("weight"))
    if damage == "missing":
        save_file({k: v for k, v in state.items() if k != key}, file, metadata={"format": "pt"})
    elif damage == "shape":
        save_file(state | {key: torch.zeros(7)}, file, metadata={"format": "pt"})
    elif damage == "zeros":
        file.write_bytes(b"\0" * 100)
    elif damage == "gone":
        file.unlink()
    elif damage == "processor":
        (directory / "preprocessor_config.json").write_text('{"size": {"longest_edge": 3}}')
    else:
        (directory / "preprocessor_config.json").unlink()
    with pytest.raises(BenchError, match=message):
        load(name, directory)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_that_is_not_here_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cls = registry.load("reward", name)
    with pytest.raises(BenchError, match=rf"hf download nobody/none[\s\S]*--set {name}\.path=DIRECTORY"):
        cls(cls.Config(source="hub:nobody/none"), CPU)
    (need,) = needs_of(cls.Config(), name, name)
    assert need.gigabytes
    assert needs_of(cls.Config(source=cls.Config.random_source), name, name) == ()
    with pytest.raises(ValueError, match="random:nano"):
        cls.Config(source="random:nano")
