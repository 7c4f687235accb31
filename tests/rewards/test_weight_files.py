import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.base.errors import BenchError
from bench.data.digests import digest
from rewards.aes import FILE as AES_FILE
from rewards.hpsv2 import FILES
from rewards.imagereward import FILE as IMAGEREWARD_FILE
from tests.support.scorers import load

KEY = "visual_projection.weight"
PT_FILE = {"hpsv2": FILES["v2.1"], "imagereward": IMAGEREWARD_FILE, "aes": AES_FILE}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", PT_FILE)
def test_a_weight_file_with_code_in_it_is_refused_and_the_code_not_run(weights, tmp_path, name, zipped):
    directory = shutil.copytree(weights[name], tmp_path / "weights")
    marker = tmp_path / "ran"
    found = {"state_dict": Malicious(marker)}
    torch.save(found, directory / PT_FILE[name], _use_new_zipfile_serialization=zipped)
    with pytest.raises(BenchError, match=r"holds more than weights[\s\S]*refused"):
        load(name, directory)
    assert not marker.exists()


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", PT_FILE)
@pytest.mark.parametrize("damage", ["cut", "empty", "page", "pickle", "list", "other", "shape", "gone"])
def test_a_damaged_or_wrong_weight_file_is_named(weights, tmp_path, name, damage):
    directory = shutil.copytree(weights[name], tmp_path / "weights")
    path = directory / PT_FILE[name]
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    inner = state["state_dict"] if name == "hpsv2" else state
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "page":
        path.write_text("<!DOCTYPE html><html>")
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif damage == "list":
        torch.save([1, 2], path)
    elif damage == "other":
        torch.save({"weight": torch.zeros(2)}, path)
    elif damage == "shape":
        key = next(k for k in inner if k.endswith("weight"))
        torch.save(inner | {key: torch.zeros(7)}, path)
    else:
        path.unlink()
    with pytest.raises(BenchError, match=path.name.replace("+", r"\+")) as caught:
        load(name, directory)
    words = {"cut": "cut short", "empty": "cut short", "other": "it lacks", "shape": "another shape"}
    words |= {"gone": "not there", "list": "expected weights by name", "pickle": path.name}
    words |= {"page": "It begins with b'<!DOCTYPE html>"}
    assert words[damage] in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice is to switch that off


def test_a_clip_checkpoint_without_some_of_its_weights_or_with_others_is_refused(weights, tmp_path):
    directory = shutil.copytree(weights["clipscore"], tmp_path / "clip")
    file = directory / "model.safetensors"
    whole = load_file(file)
    save_file({k: v for k, v in whole.items() if k != KEY}, file, metadata={"format": "pt"})
    with pytest.raises(BenchError, match=rf"clipscore.*it lacks {KEY}"):
        load("clipscore", directory)
    save_file(whole | {KEY: torch.zeros(3, 3)}, file, metadata={"format": "pt"})
    with pytest.raises(BenchError, match=rf"not of the same CLIP checkpoint: {KEY} is \[3, 3\], not \["):
        load("clipscore", directory)
    file.write_bytes(b"\0" * 100)
    with pytest.raises(BenchError, match=r"not a usable CLIP checkpoint; .* fetch it again"):
        load("clipscore", directory)


def test_a_clip_checkpoint_in_a_pickle_is_read_unless_there_is_code_in_it(weights, tmp_path):
    directory = shutil.copytree(weights["clipscore"], tmp_path / "clip")
    marker, media = tmp_path / "ran", torch.rand(1, 3, 16, 16)
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin")
    score = load("clipscore", directory).score(media, ["a dog"])
    assert torch.allclose(score, load("clipscore", weights["clipscore"]).score(media, ["a dog"]), atol=1e-6)
    torch.save(Malicious(marker), directory / "pytorch_model.bin")
    with pytest.raises(BenchError, match=r"pytorch_model.bin is damaged, or holds more than weights"):
        load("clipscore", directory)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("pickscore", "vocab.json", None),
        ("pickscore", "vocab.json", "{"),
        ("imagereward", "vocab.txt", None),
        ("imagereward", "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat"),
        ("imagereward", "vocab.txt", b"\xff\xfe\0"),
    ],
)
def test_a_tokenizer_without_the_models_vocabulary_is_refused(weights, tmp_path, name, file, content):
    directory = shutil.copytree(weights[name], tmp_path / "weights")
    (directory / file).unlink()
    if file == "vocab.json":
        (directory / "merges.txt").unlink()
    if content is not None:
        (directory / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchError, match=rf"reward {name}: the tokenizer in .* (knows|cannot be read)"):
        load(name, directory)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_of_imagereward_is_named(weights, tmp_path, content):
    directory = shutil.copytree(weights["imagereward"], tmp_path / "weights")
    (directory / "med_config.json").write_text(content)
    with pytest.raises(BenchError, match=r"med_config.json: cannot be used as ImageReward's config"):
        load("imagereward", directory)


def test_the_aesthetic_head_refuses_a_clip_model_of_another_width(weights):
    with pytest.raises(BenchError, match=r"aes.clip: the head takes 768 numbers .* gives 8"):
        load("aes", weights["aes"], clip=f"path:{weights['clipscore']}")


def test_a_directory_of_a_tokenizer_without_any_file_is_not_said_to_lack_weights_alone(tmp_path):
    with pytest.raises(BenchError, match=r"nothing to load in .*\.json.*\.txt\. Point to the directory"):
        digest(tmp_path)
