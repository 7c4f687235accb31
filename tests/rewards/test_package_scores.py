import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from rewards.aes import FILE as AES_FILE
from rewards.hpsv2 import FILES
from rewards.shared import compat
from tests.support.scorers import PROMPTS, batch, load, media_of, pictures

SIZES = ((64, 64), (48, 80), (300, 200))
PUBLISHED = {  # of CLIP ViT-H/14
    "logit_scale": (),
    "visual.class_embedding": (1280,),
    "visual.positional_embedding": (257, 1280),
    "visual.conv1.weight": (1280, 3, 14, 14),
    "visual.transformer.resblocks.31.mlp.c_fc.weight": (5120, 1280),
    "visual.proj": (1280, 1024),
    "token_embedding.weight": (49408, 1024),
    "positional_embedding": (77, 1024),
    "transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
    "text_projection": (1024, 1024),
}


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_hpsv2_is_the_packages_own_score_times_100(weights, version):
    open_clip = compat.open_clip()
    package = importlib.import_module("hpsv2.img_score")
    reward = load("hpsv2", weights["hpsv2"], version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _, package.model_dict["preprocess_val"] = open_clip.create_model_and_transforms(
            "ViT-tiny-14", None, light_augmentation=True, output_dict=True
        )
        package.model_dict["model"] = model
        for image, prompt in zip(pictures(*SIZES), PROMPTS, strict=True):
            (theirs,) = package.score(image, prompt, cp=str(weights["hpsv2"] / FILES[version]))
            ours = reward.score(media_of(image), [prompt]).item()
            assert ours == pytest.approx(100 * theirs, abs=1e-4)


def test_hpsv2s_raw_scale_is_the_cosine(weights):
    media, prompts = batch(2)
    with torch.no_grad():
        raw = load("hpsv2", weights["hpsv2"], scale="raw").score(media, prompts)
        assert torch.allclose(100 * raw, load("hpsv2", weights["hpsv2"]).score(media, prompts), atol=1e-5)


@pytest.mark.slow
def test_hpsv2_at_full_size_has_the_names_number_and_shapes_of_the_published_weights():
    with torch.device("meta"):
        model = compat.open_clip().create_model("ViT-H-14", device="meta")
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(sizes) == 686
    assert PUBLISHED.items() <= sizes.items()


@pytest.mark.slow
def test_imagereward_is_the_packages_own_score(weights):
    reward = load("imagereward", weights["imagereward"])
    same_size, *others = pictures((224, 224), *SIZES)
    theirs = reward.model.score(PROMPTS[0], same_size)
    assert reward.score(media_of(same_size), PROMPTS[:1]).item() == pytest.approx(theirs, abs=1e-5)
    for image, prompt in zip(others, PROMPTS, strict=True):  # Pillow rounds to 8 bits after a resize
        ours = reward.score(media_of(image), [prompt]).item()
        assert ours == pytest.approx(reward.model.score(prompt, image), abs=1e-2)
    _, ranked = reward.model.inference_rank(PROMPTS[0], [same_size, *others])
    assert ranked[0] == pytest.approx(theirs, abs=1e-5)
    assert max(ranked) - min(ranked) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickscore", "clipscore"])
def test_clip_rewards_are_transformers_own_scores_on_pillow(weights, name):
    directory = weights[name]
    model = CLIPModel.from_pretrained(directory).eval()
    for image, prompt in zip(pictures(*SIZES), PROMPTS, strict=True):
        tokens = CLIPTokenizer.from_pretrained(directory)([prompt], return_tensors="pt")
        with torch.no_grad():
            found = model(pixel_values=pixels_of(directory, image), **tokens)
        cosine = (found.image_embeds * found.text_embeds).sum().item()
        factor = model.logit_scale.exp().item() if name == "pickscore" else 1.0
        ours = load(name, directory).score(media_of(image), [prompt]).item()
        assert ours == pytest.approx(factor * cosine, abs=2e-3 * factor)


def pixels_of(directory: Path, image) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLIPImageProcessor.from_pretrained(directory)(image, return_tensors="pt")["pixel_values"]


@pytest.mark.slow
def test_aes_is_laions_predictor_as_image_reward_ships_it(weights):
    directory = weights["aes"]
    compat.image_reward()
    reference = importlib.import_module("ImageReward.models.AestheticScore").MLP(768).eval()
    reference.load_state_dict(torch.load(directory / AES_FILE, weights_only=True))
    clip = CLIPModel.from_pretrained(directory / "clip").eval()
    tokens = torch.tensor([[0, 1]])
    for image in pictures(*SIZES):
        pixels = pixels_of(directory / "clip", image)
        with torch.no_grad():
            theirs = reference(clip(pixel_values=pixels, input_ids=tokens).image_embeds).item()
        ours = load("aes", directory).score(media_of(image), ["never read"]).item()
        assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("size", [(224, 227), (231, 224), (227, 300), (512, 512), (224, 224)])
def test_imagereward_sees_the_pixels_that_the_package_makes_on_pillow(weights, size):
    reward = load("imagereward", weights["imagereward"])
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    difference = reward.preprocessor(media_of(image))[0] - reward.model.preprocess(image)
    levels = 255 * difference * torch.tensor(reward.preprocessor.image_std)[:, None, None]
    assert levels.abs().max() < (1e-3 if min(size) == 224 else 2)
