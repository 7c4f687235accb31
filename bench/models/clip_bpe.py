"""CLIP's tokenizer from OpenAI's published byte-pair vocabulary: no download, the ids of the real one.

Source: Radford et al. 2021 (CLIP, arXiv:2103.00020); the vocabulary file is theirs
(architectures/LICENSES.md).
"""

import gzip
import json
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

VOCABULARY = Path(__file__).parent / "architectures" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
SIZE = 49408
START, END = "<|startoftext|>", "<|endoftext|>"


def read_bpe() -> tuple[dict[str, int], list[str]]:
    """Token → id, and the merges as "left right".

    CLIP's order of tokens: bytes, bytes that end a word, merges, START, END.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 1 + SIZE - 2 * len(alphabet) - 2]  # the file's first line is a header
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(m.replace(" ", "") for m in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def write_clip_tokenizer(directory: Path, pad_token: str, max_length: int) -> CLIPTokenizer:
    """Write vocab.json, merges.txt and tokenizer_config.json into `directory` and load them."""
    vocabulary, merges = read_bpe()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(directory, local_files_only=True)
