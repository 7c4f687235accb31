"""OpenAI's own CLIP (package clip), small and random, and the same weights as a transformers directory."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from rewards.shared import compat
from tests.support.scorers import spread

WIDTH, LAYERS, TO, WORDS = 64, 2, 768, 49408
State = dict[str, Tensor]
_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_NAMES = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_PREPROCESSOR = {  # as openai/clip-vit-large-patch14 has it
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}


def package() -> Any:
    """The module clip, which image-reward imports."""
    compat.image_reward()
    return importlib.import_module("clip")


def original() -> State:
    """Weights by OpenAI's names, rounded to float16 as published."""
    model = package().model.CLIP(TO, 224, LAYERS, WIDTH, 32, 77, WORDS, WIDTH, 1, LAYERS)
    return {key: value.half() for key, value in spread(model.float()).state_dict().items()}


@contextmanager
def loadable(state: State) -> Iterator[None]:
    """`clip.load` gives the model with these weights, and the package's transform, instead of downloading."""
    clip = package()
    before = clip.load
    clip.load = lambda *_, **__: (
        clip.model.build_model(dict(state)).float().eval(),
        clip.clip._transform(224),
    )
    try:
        yield
    finally:
        clip.load = before


def save_for_transformers(state: State, directory: Path) -> None:
    """The weights, OpenAI's vocabulary and its preprocessor."""
    tower: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": TO,
    }
    ids: dict[str, Any] = {"bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": WORDS - 1}
    text = CLIPTextConfig(**tower, **ids).to_dict()
    vision = CLIPVisionConfig(**tower, patch_size=32).to_dict()
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TO))
    model.load_state_dict(_renamed({key: value.float() for key, value in state.items()}), strict=False)
    model.save_pretrained(directory)
    words = importlib.import_module("clip.simple_tokenizer").SimpleTokenizer()
    (directory / "vocab.json").write_text(json.dumps(words.encoder))
    merges = "\n".join(" ".join(pair) for pair in words.bpe_ranks)
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    (directory / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))


def _renamed(state: State) -> State:
    """The weights by transformers' names."""
    found = {
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "logit_scale": state["logit_scale"],
    }
    pairs = dict(_NAMES)
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for n in range(LAYERS):
            source, target = f"{ours}.resblocks.{n}", f"{theirs}.encoder.layers.{n}"
            pairs |= {f"{source}.{a}": f"{target}.{b}" for a, b in _LAYER.items()}
            for kind in ("weight", "bias"):
                parts = state[f"{source}.attn.in_proj_{kind}"].chunk(3)
                found |= {
                    f"{target}.self_attn.{letter}_proj.{kind}": part
                    for letter, part in zip("qkv", parts, strict=True)
                }
    for source, target in pairs.items():
        found |= {f"{target}.{kind}": state[f"{source}.{kind}"] for kind in ("weight", "bias")}
    return found
