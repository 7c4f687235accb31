import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from bench.base.errors import BenchError
from rewards.clip import ClipConfig, ClipReward
from rewards.shared.checkpoint import Dtype
from rewards.shared.clip_image import Preprocessor, centre_crop
from tests.support.random_init import build_random_clip

CPU = torch.device("cpu")
PROMPTS = ["a dog face on a blue background", "a rocket on a red background", "a banana"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return build_random_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def reward(checkpoint) -> ClipReward:
    return ClipReward(ClipConfig(path=checkpoint), CPU)


def bytes_images(height: int, width: int, batch: int = 3) -> np.ndarray:
    """8-bit pictures [B, H, W, 3] with hard edges and noise, so that a resize overshoots and is clipped."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, (batch, -(-height // 4), -(-width // 4), 3)) * 255
    edges = blocks.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    noise = rng.integers(0, 256, edges.shape)
    edges[-1] = noise[-1]
    return edges.astype(np.uint8)


def media_of(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def with_processor(checkpoint: Path, directory: Path, **changes: object) -> Path:
    """A copy of the checkpoint whose preprocessor_config.json is changed."""
    shutil.copytree(checkpoint, directory)
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def reference(directory: Path, images: np.ndarray) -> torch.Tensor:
    """Pixel values of transformers' own processor, on Pillow pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it falls back to Pillow without torchvision
        processor = CLIPImageProcessor.from_pretrained(directory)
    return processor(images=[Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["cosine", "logit"])
def test_the_score_is_the_models_own_on_its_processors_pixels(checkpoint, scale):
    images = bytes_images(16, 16)
    model = CLIPModel.from_pretrained(checkpoint).eval()
    tokens = CLIPTokenizer.from_pretrained(checkpoint)(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=reference(checkpoint, images), **tokens)
    expected = output.logits_per_image.diagonal()
    if scale == "cosine":
        expected = (output.image_embeds * output.text_embeds).sum(dim=1)
    score = ClipReward(ClipConfig(path=checkpoint, scale=scale), CPU).score(media_of(images), PROMPTS)
    assert torch.allclose(score, expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(64, 64), (40, 56), (16, 16), (17, 16), (10, 8), (33, 16)])
@pytest.mark.parametrize("resample", [2, 3])
def test_pixels_are_the_pillow_processors_within_two_levels(checkpoint, tmp_path, shape, resample):
    directory = with_processor(checkpoint, tmp_path / "clip", resample=resample)
    images = bytes_images(*shape)
    preprocessor = Preprocessor.load(directory)
    difference = preprocessor(media_of(images)) - reference(directory, images)
    levels = 255 * difference * torch.tensor(preprocessor.image_std)[:, None, None]
    assert levels.abs().max() < (1e-3 if min(shape) == 16 else 2)


def test_without_a_resize_pixels_are_the_processors_to_float_precision(checkpoint):
    images = bytes_images(16, 16)
    pixels = Preprocessor.load(checkpoint)(media_of(images))
    assert torch.allclose(pixels, reference(checkpoint, images), atol=1e-6)


def test_the_gradient_is_that_of_finite_differences_through_a_downscale(reward):
    reward.model.double()
    media = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = torch.randn(media.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    media.requires_grad_()
    slope = (torch.autograd.grad(reward.score(media, PROMPTS[:1]).sum(), media)[0] * direction).sum()
    step = 1e-6 * direction
    with torch.no_grad():
        rise = reward.score(media + step, PROMPTS[:1]) - reward.score(media - step, PROMPTS[:1])
    assert slope.item() == pytest.approx(rise.item() / 2e-6, rel=1e-4)
    assert slope.abs() > 1e-4


def test_the_model_is_frozen_in_eval_mode_and_gets_no_gradient(reward):
    media = media_of(bytes_images(16, 16)).requires_grad_()
    reward.score(media, PROMPTS).sum().backward()
    assert media.grad is not None and media.grad.abs().sum() > 0
    assert not reward.model.training
    assert all(not p.requires_grad and p.grad is None for p in reward.model.parameters())


def test_rows_do_not_depend_on_each_other_or_on_the_chunk(checkpoint, reward):
    media = media_of(bytes_images(24, 24, batch=5))
    prompts = [*PROMPTS, *PROMPTS[:2]]
    alone = torch.cat([reward.score(media[i : i + 1], prompts[i : i + 1]) for i in range(5)])
    in_chunks = ClipReward(ClipConfig(path=checkpoint, chunk=2), CPU).score(media, prompts)
    assert torch.allclose(reward.score(media, prompts), alone, atol=1e-6)
    assert torch.allclose(in_chunks, alone, atol=1e-6)


def test_a_prompts_embedding_is_bitwise_the_same_in_any_company(checkpoint, reward):
    together = reward.text_features(PROMPTS)
    other = ClipReward(ClipConfig(path=checkpoint), CPU)
    assert torch.equal(other.text_features([PROMPTS[2]])[0], together[2])


def test_prompts_embedded_in_inference_mode_still_serve_gradients(reward):
    media = media_of(bytes_images(16, 16))
    with torch.inference_mode():
        reward.score(media, PROMPTS)
    assert torch.autograd.grad(reward.score(media.requires_grad_(), PROMPTS).sum(), media)[0].abs().sum() > 0


def test_a_prompt_longer_than_the_model_reads_is_cut(reward):
    long = "a dog face " * 40
    assert torch.isfinite(reward.score(media_of(bytes_images(16, 16, 1)), [long])).all()


def test_image_features_have_unit_norm(reward):
    assert torch.allclose(reward.image_features(media_of(bytes_images(16, 16))).norm(dim=1), torch.ones(3))


def test_tokenizer_and_processor_may_lie_beside_the_checkpoint(checkpoint, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, bare)
    media = media_of(bytes_images(16, 16))
    expected = ClipReward(ClipConfig(path=checkpoint), CPU).score(media, PROMPTS)
    apart = ClipReward(ClipConfig(path=bare, processor=f"path:{checkpoint}"), CPU)
    assert torch.equal(apart.score(media, PROMPTS), expected)


def test_a_hub_checkpoint_out_of_reach_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BenchError, match=r"hf download nobody/no-such-clip[\s\S]*--set clip.path=DIRECTORY"):
        ClipReward(ClipConfig(source="hub:nobody/no-such-clip"), CPU)


def test_a_directory_that_is_missing_or_holds_no_clip_is_named(tmp_path):
    with pytest.raises(BenchError, match="gone: not a directory"):
        ClipReward(ClipConfig(path=tmp_path / "gone"), CPU)
    with pytest.raises(BenchError, match="not a usable CLIP checkpoint"):
        ClipReward(ClipConfig(path=tmp_path), CPU)


@pytest.mark.parametrize("settings", [{"source": "org/name"}, {"source": "hub:"}, {"processor": "x"}])
def test_a_source_that_says_no_kind_is_refused(settings):
    with pytest.raises(ValueError, match="is none of embedded:…, hub:…, path:…"):
        ClipConfig(**settings)


def test_one_prompt_per_image_is_required(reward):
    with pytest.raises(BenchError, match="3 images but 2 prompts"):
        reward.score(media_of(bytes_images(16, 16)), PROMPTS[:2])


def test_old_processor_files_with_plain_numbers_mean_the_same(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224, "crop_size": 224, "resample": 3}')
    assert Preprocessor.load(tmp_path) == Preprocessor()


def test_transformers_5s_nested_processor_file_is_read(tmp_path):
    settings = {"image_processor": {"size": {"height": 32, "width": 48}, "do_center_crop": False}}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    assert Preprocessor.load(tmp_path)(torch.zeros(1, 3, 9, 9)).shape == (1, 3, 32, 48)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not there"),
        ("{", "cannot be used"),
        ('{"resample": 1}', "filter 1 is not supported"),
        ('{"size": {"longest_edge": 3}}', "only {shortest_edge}"),
    ],
)
def test_a_processor_file_that_cannot_be_followed_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(BenchError, match=message):
        Preprocessor.load(tmp_path)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(BenchError, match="cannot crop"):
        centre_crop(torch.zeros(1, 3, 4, 4), (8, 8))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_cast_as_they_are_read_to_the_same_numbers(
    dtype: Dtype, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ClipReward(ClipConfig(path=checkpoint), CPU)
    loaded: list[torch.dtype] = []
    measured = ClipReward._measured

    def looked(self: ClipReward, model: CLIPModel) -> CLIPModel:
        loaded.append(model.visual_projection.weight.dtype)
        return measured(self, model)

    monkeypatch.setattr(ClipReward, "_measured", looked)
    half = ClipReward(ClipConfig(path=checkpoint, dtype=dtype), CPU)
    cast = getattr(torch, dtype)
    assert loaded == [cast]
    assert {p.dtype for p in half.model.parameters()} == {cast}
    assert half.logit_scale == whole.logit_scale  # read in float32
    for (name, found), (_, expected) in zip(
        half.model.state_dict().items(), whole.model.state_dict().items(), strict=True
    ):
        assert torch.equal(found, expected.to(found.dtype)), name
