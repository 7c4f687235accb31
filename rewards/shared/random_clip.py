"""CLIP models in full size with random weights, for trying a run out before its weights are there."""

from __future__ import annotations

from typing import Any

from bench.base.lazy import torch
from rewards.shared.checkpoint import HashTokenizer, random_model

LOGIT_SCALE = 2.6592  # CLIP's initial value
TOKENS, WORDS, START, END = 77, 49406, 49406, 49407
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # hidden size, layers, heads, MLP of text and of vision; what is projected to; activation
    "ViT-L-14": {"text": (768, 12, 12, 3072), "vision": (1024, 24, 16, 4096), "to": 768, "act": "quick_gelu"},
    "ViT-H-14": {"text": (1024, 24, 16, 4096), "vision": (1280, 32, 16, 5120), "to": 1024, "act": "gelu"},
}


def random_clip(architecture: str) -> tuple[Any, HashTokenizer]:
    """A CLIPModel (float32, on the CPU) in the shapes of OpenAI's L/14 or LAION's H/14, and a tokenizer.

    The weights depend on the name alone, so two runs score alike.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    shape = ARCHITECTURES[architecture]
    shared: dict[str, Any] = {"hidden_act": shape["act"], "projection_dim": shape["to"]}
    ids: dict[str, Any] = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**_tower(shape["text"]), **shared, **ids).to_dict(),
        vision_config=CLIPVisionConfig(**_tower(shape["vision"]), **shared, patch_size=14).to_dict(),
        projection_dim=shape["to"],
    )
    model = random_model(lambda: CLIPModel(config), architecture)
    fill_positions(model)
    with torch.no_grad():
        model.logit_scale.fill_(LOGIT_SCALE)
    return model, HashTokenizer(START, END, END, (0, WORDS), TOKENS)


def fill_positions(model: torch.nn.Module) -> None:
    """Write the numbers of positions, which are buffers that no file has."""
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1])[None])


def _tower(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, shape, strict=True))
