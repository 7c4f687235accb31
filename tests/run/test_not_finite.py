"""Models and LoRAs that give what is not finite: a message and no file, whatever was to write it."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.base.errors import BenchError, NotFinite
from bench.base.media import files, to_bytes
from bench.measure.vbench import mp4
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from tests.models.test_image import latents, picture
from tests.support.pipelines import CPU, change, image_chain, pipeline_dir
from tests.support.running import here
from tests.support.videos import video_dir

pytestmark = pytest.mark.silent

UNET = "unet/diffusion_pytorch_model.safetensors"
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def broken(source: Path, directory: Path, part: str = UNET) -> Path:
    """A copy of a pipeline, one number of one of its networks not finite."""
    shutil.copytree(source, directory)
    state = load_file(directory / part)
    state["conv_in.bias" if part == UNET else "decoder.conv_in.bias"][0] = float("nan")
    save_file(state, directory / part, metadata={"format": "pt"})
    return directory


def no_lora(directory: Path) -> Path:
    """A LoRA with one number that is not finite."""
    image_chain(steps=2).save_lora(directory)
    file = directory / "pytorch_lora_weights.safetensors"
    state = load_file(file)
    state[min(state)][0, 0] = float("nan")
    save_file(state, file, metadata={"format": "pt"})
    return directory


@pytest.mark.slow
def test_sample_writes_no_black_picture_of_a_network_that_is_not_finite(tmp_path: Path) -> None:
    model = broken(pipeline_dir(), tmp_path / "model")
    options = ("--model", f"path:{model}", "--prompt", "a cat", "--n", 1, "--set", "model.steps=2")
    done = here("sample", *options, "--out", tmp_path / "out")
    assert (
        done.returncode == 2
        and "the latents of 1 of 1 samples are not finite: from step 0 of 2" in done.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sample_writes_no_black_picture_of_a_lora_that_is_not_finite(tmp_path: Path) -> None:
    options = ("--model", f"path:{pipeline_dir()}", "--prompt", "a cat", "--n", 1, "--set", "model.steps=2")
    done = here("sample", *options, "--lora", no_lora(tmp_path / "lora"), "--out", tmp_path / "out")
    assert done.returncode == 2 and "not all its numbers are finite: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_sample_refuses_noise_levels_at_which_the_prediction_has_no_meaning(tmp_path: Path) -> None:
    model = shutil.copytree(pipeline_dir(), tmp_path / "model")
    change(model / "scheduler" / "scheduler_config.json", ZERO_SNR)
    done = here("sample", "--model", f"path:{model}", "--prompt", "a cat", "--out", tmp_path / "out")
    assert done.returncode == 2 and "step 0 begins with noise alone" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")
def test_vbench_generate_writes_no_black_video_of_a_network_that_is_not_finite(tmp_path: Path) -> None:
    model, out = broken(video_dir(), tmp_path / "model"), tmp_path / "videos"
    settings = ("model.family=video", "model.frames=2", "model.steps=2")
    words = [word for setting in settings for word in ("--set", setting)]
    few = ("--dimension", "scene", "--subset", 1, "--per-prompt", 1, "--at-once", 1)
    done = here("vbench", "generate", "--model", f"path:{model}", *words, *few, "--out", out)
    assert done.returncode == 2 and "samples are not finite: from step 0 of 2" in done.stderr
    assert not list(out.glob("*.mp4"))


@pytest.mark.slow
def test_decoder_that_is_not_finite_is_not_blamed_on_its_precision(tmp_path: Path) -> None:
    model = broken(pipeline_dir(), tmp_path / "model", "vae/diffusion_pytorch_model.safetensors")
    chain = ImageChain.load(ModelConfig(path=model, steps=2), CPU)
    with pytest.raises(NotFinite, match="the image decoder gives values that are not finite: its weights"):
        picture(chain, latents(chain))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_file_is_made_of_a_picture_or_video_that_is_not_finite(value: float) -> None:
    """Whichever chain made it, a plugin's, too."""
    for media in (torch.rand(3, 8, 8), torch.rand(2, 3, 8, 8)):
        media.view(-1)[5] = value
        for write in (to_bytes, files):
            with pytest.raises(BenchError, match=r"1 of \d+ values of a picture or video are not finite"):
                write(media)
