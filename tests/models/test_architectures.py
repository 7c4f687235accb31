"""Random weights in the shapes of published models, and CLIP's tokenizer from its published vocabulary."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.clip_bpe import read_bpe
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from bench.models.pipeline import load_pipeline
from bench.models.random_weights import architecture, empty_parts, fill
from tests.models.test_image import latents, picture
from tests.support.pipelines import CPU, small_architecture, small_chain
from tests.support.toys import PROMPTS

# Parameters of the published checkpoints.
SD1 = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
SD2 = {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
SDXL = {
    "unet": 2_567_463_684,
    "vae": 83_653_863,
    "text_encoder": 123_060_480,
    "text_encoder_2": 694_659_840,
}
SIZES = {"sd14": SD1, "sd15": SD1, "sd21": SD2, "sd21-base": SD2, "sdxl": SDXL}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_shipped_architecture_has_as_many_parameters_as_the_published_model(name: str) -> None:
    parts = empty_parts(architecture(name))
    assert {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()} == SIZES[
        name
    ]


def test_vocabulary_is_clips() -> None:
    vocabulary, merges = read_bpe()
    assert len(vocabulary) == 49408 and len(merges) == 48894
    assert [vocabulary[token] for token in ("!", "a</w>", "cat</w>", "<|startoftext|>", "<|endoftext|>")] == [
        0,
        320,
        2368,
        49406,
        49407,
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "which", "pad"),
    [("sd14", "tokenizer", 49407), ("sd21", "tokenizer", 0), ("sdxl", "tokenizer_2", 0)],
)
def test_tokenizer_gives_the_published_ids_and_the_models_padding(name: str, which: str, pad: int) -> None:
    config = ModelConfig(source=f"random:{small_architecture(name)}")
    tokenizer = getattr(load_pipeline(config, torch.float32), which)
    ids = tokenizer("a photo of a cat", padding="max_length", max_length=77).input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, *[pad] * 70]
    assert tokenizer.model_max_length == 77


def weights(chain: ImageChain) -> dict[str, Tensor]:
    """All frozen numbers."""
    parts = (chain.network, chain.vae, chain.pipeline.text_encoder)
    return {f"{n}.{key}": p for n, part in enumerate(parts) for key, p in part.state_dict().items()}


@pytest.mark.slow
def test_random_weights_are_the_same_in_two_runs_whatever_the_global_seed() -> None:
    source = f"random:{small_architecture('sd14')}"
    loaded = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        loaded.append(weights(ImageChain.load(ModelConfig(source=source), CPU)))
    plain = {key for key in loaded[0] if ".lora_A." not in key}
    assert loaded[0].keys() == loaded[1].keys() and len(plain) > 100
    assert all(torch.equal(loaded[0][key], loaded[1][key]) for key in plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd14", "sd21", "sdxl"])
def test_random_pictures_after_50_steps_depend_on_prompt_and_noise_and_fit_float16(name: str) -> None:
    chain = small_chain(name, spread=0.0, steps=50, guidance=7.5, dtype="half")
    largest = [0.0]

    def look(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            largest[0] = max(largest[0], float(output.abs().max()))

    for module in (*chain.network.modules(), *chain.vae.modules()):
        module.register_forward_hook(look)
    noise = latents(chain, 2)
    prompts = (PROMPTS[0], PROMPTS[1], PROMPTS[0])
    one, other_prompt, other_noise = made = picture(chain, noise[[0, 0, 1]], prompts)
    assert bool(made.isfinite().all())
    assert largest[0] < 1000  # float16 ends at 65504
    assert float(made.std()) > 0.1
    assert float(((made == 0) | (made == 1)).float().mean()) < 0.5
    for other in (other_prompt, other_noise):
        assert float((one - other).abs().mean()) > 0.01


@pytest.mark.slow
def test_random_tiny_is_the_embedded_architecture_with_its_own_tokenizer() -> None:
    real = ImageChain.load(ModelConfig(path=architecture("tiny")), CPU)
    random = ImageChain.load(ModelConfig(source="random:tiny"), CPU)
    ours, theirs = weights(random), weights(real)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert not torch.equal(ours["0.conv_in.weight"], theirs["0.conv_in.weight"])
    assert random.pipeline.tokenizer("a dog").input_ids == real.pipeline.tokenizer("a dog").input_ids


def test_weights_keep_the_variance_of_what_they_are_given() -> None:
    with torch.device("meta"):
        empty = torch.nn.Linear(400, 300, bias=True)
    layer = fill(empty, torch.float32, seed=0)
    x = torch.randn(1000, 400, generator=torch.Generator().manual_seed(5))
    assert float(layer(x).std()) == pytest.approx(1, abs=0.03)


def test_unknown_architecture_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError,
        match=r"random:sd41.*Did you mean 'sd.*Known: flux1, modelscope, sd14, sd15, sd21, sd21-base, "
        r"sd35, sd35-large, sdxl, tiny, tiny-flow, tiny-video, videocrafter2, wan21-1\.3b, zeroscope",
    ):
        ImageChain.load(ModelConfig(source="random:sd41"), CPU)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(BenchError, match=r"model_index\.json: cannot be read as JSON"):
        ImageChain.load(ModelConfig(source=f"random:{tmp_path}"), CPU)
