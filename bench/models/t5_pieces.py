"""A tokenizer in T5's form for random weights: as many pieces, the same ends, made of CLIP's vocabulary.

T5's own vocabulary comes with its weights. Where those are random numbers, any pieces will do that tell texts
apart.
"""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel, UMT5EncoderModel

from bench.models.clip_bpe import read_bpe

WORDS = 32100  # of T5 v1.1, with its hundred sentinels
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "▁"  # begins a word, as in sentencepiece


def is_t5(part: type[nn.Module]) -> bool:
    """Whether a class is that of a T5 text encoder, with one vocabulary or another."""
    return issubclass(part, T5EncoderModel | UMT5EncoderModel)


@cache
def t5_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: pads at the right, ends a text with END, and cuts it where asked."""
    words, _ = read_bpe()  # common ones first
    pieces = dict.fromkeys(
        SPACE + word.removesuffix("</w>") if word.endswith("</w>") else word for word in words
    )
    kept = [SPACE, *(piece for piece in pieces if piece != SPACE)][: WORDS - 3]
    scores = [(piece, -float(place) / WORDS) for place, piece in enumerate([PAD, END, UNKNOWN, *kept])]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=512
    )
