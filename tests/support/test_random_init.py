"""The random models that the rest of the tests use."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from scripts.embedded.evaluate import load_pipeline, sample
from tests.support.random_init import IMAGE_SIZE, MAX_LENGTH, build_random_clip, build_random_pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    directory = build_random_pipeline(tmp_path_factory.mktemp("sd"), prediction_type="v_prediction")
    return load_pipeline(directory)


@pytest.mark.slow
def test_random_pipeline_generates_and_listens_to_the_prompt(pipeline: StableDiffusionPipeline) -> None:
    pictures = [
        sample(pipeline, [prompt], guidance, steps=3)
        for prompt, guidance in (
            ("a red apple", 1.0),
            ("a red apple", 3.0),
            ("a fox on a blue background", 1.0),
        )
    ]
    assert pictures[0].shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert float(pictures[0].std()) > 0.01
    assert not torch.allclose(pictures[0], pictures[1], atol=1e-3)
    assert not torch.allclose(pictures[0], pictures[2], atol=1e-3)


@pytest.mark.slow
def test_random_pipeline_has_the_settings_asked_for(pipeline: StableDiffusionPipeline) -> None:
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.scheduler.config["prediction_type"] == "v_prediction"
    assert pipeline.scheduler.config["set_alpha_to_one"] is False
    assert pipeline.tokenizer.model_max_length == MAX_LENGTH
    assert sum(p.numel() for p in pipeline.unet.parameters()) < 60_000


@pytest.mark.slow
def test_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first = CLIPModel.from_pretrained(build_random_clip(tmp_path / "a", seed=1))
    torch.manual_seed(11)
    again = CLIPModel.from_pretrained(build_random_clip(tmp_path / "b", seed=1))
    other = CLIPModel.from_pretrained(build_random_clip(tmp_path / "c", seed=2))
    name = "visual_projection.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_building_leaves_the_global_stream_alone(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    build_random_clip(tmp_path, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_random_clip_scores_are_differentiable_and_tell_prompts_apart(tmp_path: Path) -> None:
    directory = build_random_clip(tmp_path)
    model = CLIPModel.from_pretrained(directory)
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    x = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, requires_grad=True)
    text = tokenizer(["a dog face", "grapes"], padding=True, return_tensors="pt")
    scores = model(**text, pixel_values=x).logits_per_image[0]
    scores[0].backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
    assert float((scores[0] - scores[1]).detach().abs()) > 1e-3
