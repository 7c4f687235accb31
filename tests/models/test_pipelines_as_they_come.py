"""Pipelines that lack something or ask for more than the chains do: refused by name, before anything runs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.data.sources import locate
from bench.models import pipeline
from bench.models.clip_bpe import write_clip_tokenizer
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from bench.models.pipeline import load_pipeline
from bench.models.video import VideoChain
from tests.models.test_image import diffusers_picture, latents, picture
from tests.support.pipelines import CPU, change, image_chain, pipeline_dir, small_architecture
from tests.support.videos import small_video_architecture, video_dir

pytestmark = pytest.mark.silent

State = dict[str, Tensor]
FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A pipeline's directory that may be damaged."""
    return shutil.copytree(pipeline_dir(), tmp_path / "model")


def rewrite(file: Path, edit: Callable[[State], State]) -> None:
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def lacking(state: State) -> State:
    first = min(state)
    return {key: value for key, value in state.items() if key != first}


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def reshaped(state: State) -> State:
    return state | {min(state): torch.zeros(3)}


def emptied(state: State) -> State:
    return {}


def refusal(directory: Path, **settings: Any) -> str:
    with pytest.raises(BenchError) as caught:
        load_pipeline(ModelConfig(path=directory, steps=2, **settings), torch.float32)
    return str(caught.value)


@pytest.mark.parametrize("edit", [lacking, prefixed, reshaped, emptied], ids=lambda f: f.__name__)
@pytest.mark.parametrize("part", FILES)
def test_a_network_without_some_of_its_tensors_names_the_first(
    part: str, edit: Callable[[State], State], directory: Path
) -> None:
    file = directory / part / f"{FILES[part]}.safetensors"
    known = load_file(file)
    rewrite(file, edit)
    said = refusal(directory)
    assert str(directory / part) in said and min(known).removeprefix("text_model.") in said
    assert ("it has module." in said) == (edit is prefixed)
    assert len(said) < 1000


@pytest.mark.parametrize("part", FILES)
def test_a_network_whose_file_is_cut_short_is_named(part: str, directory: Path) -> None:
    file = directory / part / f"{FILES[part]}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{directory / part}: cannot be loaded as a" in refusal(directory)


@pytest.mark.slow
def test_an_embedding_of_frames_per_second_that_is_there_in_part_is_named(tmp_path: Path) -> None:
    directory = shutil.copytree(video_dir(), tmp_path / "model")
    file = directory / "unet" / "diffusion_pytorch_model.safetensors"
    rewrite(file, lambda state: state | {"fps_embedding.linear_1.bias": torch.zeros(32)})
    with pytest.raises(
        BenchError, match=r"it lacks fps_embedding.linear_1.weight, fps_embedding.linear_2.bias"
    ):
        VideoChain.load(ModelConfig(family="video", frames=2, path=directory, fps=8), CPU)


@pytest.mark.slow
def test_second_text_encoder_of_sdxl_is_checked_too(tmp_path: Path) -> None:
    config = ModelConfig(source=f"random:{small_architecture('sdxl')}")
    load_pipeline(config, torch.float32).save_pretrained(tmp_path)
    rewrite(tmp_path / "text_encoder_2" / "model.safetensors", lacking)
    assert f"{tmp_path / 'text_encoder_2'} is not a whole CLIPTextModelWithProjection" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "unet",
            {"time_cond_proj_dim": 256},
            "time_cond_proj_dim is set: this UNet is told the guidance scale",
        ),
        ("unet", {"class_embed_type": "timestep"}, "this UNet is told a class"),
        ("unet", {"num_class_embeds": 7}, "this UNet is told a class"),
        ("unet", {"encoder_hid_dim_type": "ip_image_proj"}, "encoder_hid_dim_type is ip_image_proj"),
        ("unet", {"addition_embed_type": "text_time"}, "this is no UNet of Stable Diffusion, as"),
        ("unet", {"in_channels": 9}, "in_channels is 9: .* Models for inpainting"),
        ("unet", {"in_channels": 8}, "in_channels is 8"),
        ("unet", {"out_channels": 8}, "out_channels is 8: .* Models that predict a variance"),
        (
            "unet",
            {"cross_attention_dim": 32},
            "cross_attention_dim is 32, and the text encoder's states are 16",
        ),
        ("vae", {"latents_mean": [0.1] * 4}, "latents_mean and latents_std belong together"),
        ("vae", {"latents_mean": [0.1] * 3, "latents_std": [1.0] * 3}, "need 4 finite numbers"),
        ("vae", {"shift_factor": 0.06}, "shift_factor is 0.06"),
        ("vae", {"scaling_factor": 0}, "scaling_factor is 0"),
        ("model_index", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
        ("model_index", {"text_encoder": ["transformers", "T5EncoderModel"]}, "needs a CLIPTextModel"),
        ("model_index", {"scheduler": ["diffusers", "LCMScheduler"]}, "a LCMScheduler is not understood"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "a EDMEulerScheduler is not understood"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "prediction_type flow_prediction"),
        (
            "scheduler",
            {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            "step 0 begins with noise alone",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_settings_that_would_mean_nothing_here_are_refused_before_weights_are_read(
    file: str, changes: dict[str, Any], message: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"scheduler": "scheduler/scheduler_config.json", "model_index": "model_index.json"}
    change(directory / (places.get(file, f"{file}/config.json")), changes)
    monkeypatch.setattr(pipeline, "_part", pytest.fail)
    with pytest.raises(BenchError, match=message):
        load_pipeline(ModelConfig(path=directory, steps=2), torch.float32)


def test_random_weights_and_videos_are_checked_alike(tmp_path: Path) -> None:
    directory = shutil.copytree(small_video_architecture(), tmp_path / "model")
    change(directory / "unet" / "config.json", {"in_channels": 9})
    with pytest.raises(BenchError, match="in_channels is 9"):
        load_pipeline(
            ModelConfig(family="video", frames=2, source=f"random:{directory}"), torch.float32, "video"
        )


MEAN, STD = [0.4, -0.7, 0.2, 1.0], [1.5, 0.6, 2.0, 0.9]


@pytest.mark.slow
def test_decoder_with_mean_and_std_of_its_latents_is_diffusers_sdxl_formula(tmp_path: Path) -> None:
    """The pipeline's own picture; without the two it is far away."""
    source = shutil.copytree(small_architecture("sdxl"), tmp_path / "normalised")
    change(source / "vae" / "config.json", {"latents_mean": MEAN, "latents_std": STD})
    config = ModelConfig(source=f"random:{source}", steps=2, guidance=2.0)
    chain = ImageChain.load(config, CPU)
    theirs: Any = load_pipeline(config, torch.float32)
    plain = ImageChain.load(config.model_copy(update={"source": f"random:{small_architecture('sdxl')}"}), CPU)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config)
    x = latents(chain)
    torch.testing.assert_close(picture(chain, x), diffusers_picture(theirs, chain, x), rtol=0, atol=1e-3)
    assert float((picture(chain, x) - picture(plain, x)).abs().max()) > 0.05


@pytest.mark.slow
def test_decoder_with_mean_and_std_of_its_latents_is_so_in_every_family(directory: Path) -> None:
    """x std / factor + mean, of Stable Diffusion's pictures (and with them videos' frames), too."""
    change(directory / "vae" / "config.json", {"latents_mean": MEAN, "latents_std": STD})
    chain, plain = ImageChain.load(ModelConfig(path=directory, steps=2), CPU), image_chain(steps=2)
    x = latents(chain)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    factor = plain.vae.config["scaling_factor"]
    torch.testing.assert_close(chain.decode(x), plain.decode(x * std + factor * mean), rtol=0, atol=1e-5)


def test_a_tokenizer_without_its_vocabulary_is_named(directory: Path) -> None:
    """It would read every word as the same unknown one."""
    for file in (directory / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    assert f"{directory / 'tokenizer'}" in refusal(directory)


@pytest.mark.slow
def test_a_tokenizer_of_another_model_is_named(directory: Path) -> None:
    shutil.rmtree(directory / "tokenizer")
    write_clip_tokenizer(directory / "tokenizer", "<|endoftext|>", 77)
    assert "this tokenizer knows 49408 words, and the text encoder" in refusal(directory)


def test_variants_of_sharded_files_are_called_by_their_name(directory: Path) -> None:
    unet = directory / "unet"
    whole = unet / "diffusion_pytorch_model.safetensors"
    for name in ("fp16-00001-of-00002", "fp16-00002-of-00002"):
        shutil.copy(whole, unet / f"diffusion_pytorch_model.{name}.safetensors")
    whole.unlink()
    assert "Files of variant fp16 are there: --set model.variant=fp16" in refusal(directory)
    assert "fp16-0000" not in refusal(directory).partition("Files of variant")[2]


def test_sharded_files_without_a_variant_are_seen(directory: Path) -> None:
    unet = directory / "unet"
    whole = unet / "diffusion_pytorch_model.safetensors"
    whole.rename(unet / "diffusion_pytorch_model-00001-of-00001.safetensors")
    assert "--set model.variant=null" in refusal(directory, variant="fp16")


def test_sharded_files_of_a_variant_are_fetched() -> None:
    (need,) = ModelConfig(source="hub:org/name", variant="fp16").needs("model", "model")
    assert "*/*.fp16-*.safetensors" in need.files and "*/*.fp16.safetensors" in need.files


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_single_file_checkpoint_is_told_how_to_become_a_directory(suffix: str, tmp_path: Path) -> None:
    """Named itself, or alone in the directory that is named."""
    file = tmp_path / f"v1-5{suffix}"
    file.write_bytes(b"x")
    (need,) = ModelConfig(source=f"path:{file}").needs("model", "model")
    with pytest.raises(BenchError, match="from_single_file") as caught:
        locate(need)
    assert f"--model path:{tmp_path / 'v1-5'}" in str(caught.value)
    assert "from_single_file" in refusal(tmp_path)


def test_an_unchanged_copy_loads_so_that_the_change_is_what_is_refused(directory: Path) -> None:
    load_pipeline(ModelConfig(path=directory, steps=2), torch.float32)
