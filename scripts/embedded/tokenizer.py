"""A CLIP tokenizer of our own: byte-level BPE learnt from captions, written as vocab.json + merges.txt.

Those two files (and not tokenizer.json, whose layout differs) are what transformers 4 and 5 both read.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

VOCABULARY = 2048
MAX_LENGTH = 24
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's own splitting rule


def learn_bpe(captions: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary (token → id) and merges, in CLIP's order: bytes, bytes ending a word, merges, START, END.

    At most `size` tokens, fewer if the captions offer no more merges. Deterministic.
    """
    tokenizer = Tokenizer(BPE(unk_token=None, continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        # The trainer counts only the word-ending bytes that occur; room for all, the surplus is cut below.
        vocab_size=size + 2 * len(alphabet),
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    stored = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in stored]
    tokens = dict.fromkeys([*alphabet, *(c + "</w>" for c in alphabet)])
    used = []
    for left, right in merges:
        if left + right not in tokens and len(tokens) + 2 == size:
            break
        tokens[left + right] = None
        used.append((left, right))
    return {token: i for i, token in enumerate([*tokens, START, END])}, used


def special_ids(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The ids that every CLIP text config must name: without them the end of a caption is misread."""
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in (START, END))
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}


def write_tokenizer(
    directory: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]], max_length: int
) -> CLIPTokenizer:
    """Write the four files of a CLIPTokenizer into `directory` and load it from there."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(directory, local_files_only=True)
