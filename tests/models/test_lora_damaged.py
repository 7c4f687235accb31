"""LoRA files that are damaged, pickled, without numbers or two at a time: what is told of them."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.base.errors import BenchError
from bench.models.lora_place import weights_file
from bench.run.load import find_lora
from tests.models.test_lora_as_they_come import changes, loaded, peft_directory, saved, styled, tensors_of
from tests.models.test_lora_files import FILE, foreign, write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        ({"unet.mid.to_q.alpha": torch.tensor(2.0)}, "gives alpha of layers without tensors: mid.to_q.alpha"),
        ({"conv.weight": torch.ones(2)}, "holds conv.weight, no tensor of a LoRA"),
        ({"unet.mid.to_q.lora_A.weight": torch.full((2, 2), float("nan"))}, "not all its numbers are finite"),
        ({"unet.mid.to_q.alpha": torch.tensor(float("inf"))}, "not all its numbers are finite"),
    ],
    ids=["none", "alphas", "no LoRA", "NaN", "infinite alpha"],
)
def test_files_without_a_lora_or_without_finite_numbers_are_refused(
    tensors: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=message):
        loaded(saved(tmp_path, tensors))


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    directory = saved(tmp_path, styled("diffusers", tensors_of({"to_q": 2}), {}))
    data = (directory / FILE).read_bytes()
    for size in (0, 4, len(data) // 2):
        (directory / FILE).write_bytes(data[:size])
        with pytest.raises(BenchError, match=f"{FILE}: no whole safetensors file"):
            loaded(directory)


def test_a_file_itself_is_as_good_as_its_directory(tmp_path: Path) -> None:
    directory = saved(tmp_path, styled("kohya", tensors_of({"to_q": 2}), {}))
    file = directory / FILE
    assert find_lora(file, "--lora") == file and find_lora(directory, "--lora") == directory
    by_file, by_directory = changes(loaded(file)), changes(loaded(directory))
    assert all(torch.equal(change, by_directory[name]) for name, change in by_file.items())
    assert by_file.keys() == by_directory.keys()


def test_peft_weights_without_their_settings_are_refused(tmp_path: Path) -> None:
    """alpha is there; under another name, or alone, it would be guessed."""
    directory, _, _ = peft_directory(tmp_path)
    file = directory / "adapter_model.safetensors"
    assert weights_file(directory) == file
    changes(loaded(file))
    shutil.copy(file, tmp_path / "other.safetensors")
    assert weights_file(directory) == file
    (directory / "adapter_config.json").unlink()
    for place in (file, tmp_path / "other.safetensors"):
        with pytest.raises(BenchError, match=r"whose alpha is in adapter_config.json"):
            loaded(place)


@pytest.mark.parametrize("name", ["pytorch_lora_weights.bin", "adapter_model.bin", "lora.pt", "lora.ckpt"])
def test_pickled_loras_are_told_how_to_be_converted(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    torch.save({"a": torch.ones(2)}, file)
    for place in (file, tmp_path):
        with pytest.raises(BenchError, match="Convert it") as caught:
            find_lora(place, "--lora")
    command = str(caught.value).partition('python -c "')[2].removesuffix('"')
    exec(command)
    assert torch.equal(load_file(file.with_suffix(".safetensors"))["a"], torch.ones(2))


def test_two_files_in_one_directory_are_both_named(tmp_path: Path) -> None:
    write("without metadata", foreign(["to_q"]), tmp_path)
    shutil.copy(tmp_path / FILE, tmp_path / "other.safetensors")
    with pytest.raises(BenchError, match=rf"--lora {tmp_path}: holds 2 .* \(other.safetensors, {FILE}\)"):
        find_lora(tmp_path, "--lora")
