"""Many equal words of a text as one: joint attention in which the last word counts for several.

Where Stable Diffusion 3 has no T5, its pipeline appends 256 zeros to the words of a text. They have no places
and so are equal in every layer: one of them will do, if attention counts it 256 times.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor
from torch.nn import functional


class RepeatedLast(JointAttnProcessor2_0):
    """diffusers' joint attention over pictures and words, with the last word there `count` times.

    Exact: softmax weights of equal keys add up, so log(count) is added to the last key's logits. In bfloat16
    log 256 has an error of 1.4 %, which is then that of how often the key counts.
    """

    def __init__(self, count: int) -> None:
        """count: 1 or more; may be changed between calls."""
        super().__init__()
        self.count = count

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Any:
        """Patches [B, n, width] and words [B, m, width] → the same, as the processor that this replaces."""
        plain: Any = super().__call__
        if encoder_hidden_states is None:  # attention among patches alone
            return plain(attn, hidden_states)
        patches: Any = (attn.to_q, attn.to_k, attn.to_v)
        words: Any = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        of_patches = [_heads(attn, layer(hidden_states)) for layer in patches]
        of_words = [_heads(attn, layer(encoder_hidden_states)) for layer in words]
        norms: Any = ((attn.norm_q, attn.norm_added_q), (attn.norm_k, attn.norm_added_k))
        for k, (norm, norm_added) in enumerate(norms):
            of_patches[k] = of_patches[k] if norm is None else norm(of_patches[k])
            of_words[k] = of_words[k] if norm_added is None else norm_added(of_words[k])
        query, key, value = (torch.cat(both, dim=2) for both in zip(of_patches, of_words, strict=True))
        bias = query.new_zeros(key.shape[2])
        bias[-1] = math.log(self.count)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None, None, None])
        out = out.transpose(1, 2).flatten(2)
        pictures, texts = out.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        to_out: Any = attn.to_out
        to_add_out: Any = attn.to_add_out
        pictures = to_out[1](to_out[0](pictures))
        return pictures, texts if attn.context_pre_only else to_add_out(texts)


def repeat_last(network: SD3Transformer2DModel, count: int) -> RepeatedLast:
    """Have a transformer's last word count `count` times; returns the processor of all its layers."""
    processor = RepeatedLast(count)
    network.set_attn_processor(processor)
    return processor


def _heads(attn: Attention, x: Tensor) -> Tensor:
    """[B, n, width] → [B, heads, n, width of a head]."""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
