"""Directories as the models' makers published them in 2022, which today's libraries write otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.hub import holds
from bench.models.clip_bpe import write_clip_tokenizer
from bench.models.config import ModelConfig
from bench.models.image import ImageChain
from bench.models.pipeline import load_pipeline
from tests.models.test_image import latents, picture
from tests.support.pipelines import CPU, small_architecture

# Of the decoder's attention, as diffusers named it before 0.15.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# transformers 5 has no CLIPFeatureExtractor, and the safety checker is not downloaded.
INDEX = {"feature_extractor": "CLIPFeatureExtractor", "safety_checker": "StableDiffusionSafetyChecker"}


def old_name(key: str) -> str:
    if ".attentions." in key:
        for new, old in OLD_NAMES.items():
            key = key.replace(f".{new}.", f".{old}.")
    return key


def added_token(content: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


def publish(name: str, directory: Path) -> ImageChain:
    """Write a small random model as its makers did; the chain of the same weights as written today."""
    config = ModelConfig(source=f"random:{small_architecture(name)}", steps=2)
    load_pipeline(config, torch.float32).save_pretrained(directory)
    _rename(directory / "vae" / "diffusion_pytorch_model.safetensors", old_name)
    text = directory / "text_encoder" / "model.safetensors"
    _rename(text, lambda key: f"text_model.{key.removeprefix('text_model.')}")
    position = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_file(text) | position, text, metadata={"format": "pt"})
    index = json.loads((directory / "model_index.json").read_text())
    index |= {part: ["transformers", cls] for part, cls in INDEX.items()}
    (directory / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(directory / "tokenizer")
    _old_tokenizer(directory / "tokenizer", pad="<|endoftext|>" if name == "sd14" else "!")
    torch.manual_seed(0)
    return ImageChain.load(config, CPU)


def _rename(file: Path, name: Any) -> None:
    state = {name(key): value for key, value in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})


def _old_tokenizer(directory: Path, pad: str) -> None:
    """vocab.json and merges.txt, no tokenizer.json, special tokens written out. SD 2's two files differ in
    the padding, and the map is right."""
    directory.mkdir()
    write_clip_tokenizer(directory, "<|endoftext|>", 77)
    (directory / "tokenizer.json").unlink(missing_ok=True)
    tokens = {
        f"{kind}_token": added_token(f"<|{text}oftext|>")
        for kind, text in (("bos", "start"), ("eos", "end"), ("unk", "end"))
    }
    settings = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": "<|endoftext|>",
        "name_or_path": "openai/clip-vit-large-patch14",
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | tokens))
    (directory / "special_tokens_map.json").write_text(json.dumps(tokens | {"pad_token": pad}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd14", "sd21-base"])
def test_a_directory_as_published_gives_the_same_picture_bit_for_bit(name: str, tmp_path: Path) -> None:
    today = publish(name, tmp_path)
    config = ModelConfig(path=tmp_path, steps=2)
    torch.manual_seed(0)
    published = ImageChain.load(config, CPU)
    (need,) = config.needs("model", "model")
    assert holds(tmp_path, need)
    assert published.pipeline.safety_checker is None
    x = latents(today)
    assert torch.equal(picture(today, x), picture(published, x))
