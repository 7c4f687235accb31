"""Measure exported models: autoencoder, reward on real pictures, reward of samples by guidance."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from bench.data.prompts.emoji import STYLES, combinations, prompt
from scripts.embedded.clip import embed_captions, embed_pictures
from scripts.embedded.clip_data import split_renderings
from scripts.embedded.compose import BACKGROUND_NAMES, Library, load_library
from scripts.embedded.retrieval import Retrieval, Shown, retrieval, show
from scripts.embedded.vae import decode, encode, split_unseen, vae_psnr

GUIDANCES = (1.0, 2.0, 4.0)
STEPS = 20
PER_SPLIT = 128


@dataclass(frozen=True)
class Judge:
    """The reward with its tokenizer: cosine similarity of picture and caption."""

    model: CLIPModel
    tokenizer: CLIPTokenizer

    @classmethod
    def load(cls, directory: Path) -> "Judge":
        """Read a CLIP directory; computes in float32."""
        model = CLIPModel.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
        return cls(model, CLIPTokenizer.from_pretrained(directory, local_files_only=True))

    def pictures(self, x: Tensor) -> Tensor:
        """Unit vectors of pictures in [−1, 1]."""
        return embed_pictures(self.model, x)

    def captions(self, texts: list[str]) -> Tensor:
        """Unit vectors of captions."""
        return embed_captions(self.model, self.tokenizer, texts)

    @torch.no_grad()
    def scores(self, x: Tensor, texts: list[str]) -> Tensor:
        """Cosines [B] of pictures [B, 3, 64, 64] in [−1, 1] and their captions."""
        return (self.pictures(x) * self.captions(texts)).sum(-1)


def load_pipeline(directory: Path) -> StableDiffusionPipeline:
    """Read a pipeline directory; computes in float32, silently."""
    pipeline = StableDiffusionPipeline.from_pretrained(directory, local_files_only=True)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.float()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline, texts: list[str], guidance: float, seed: int = 0, steps: int = STEPS
) -> Tensor:
    """DDIM samples (η = 0) in [−1, 1], [B, 3, 64, 64]; the k-th noise depends on seed and k only."""
    out = []
    for start in range(0, len(texts), 32):
        chunk = texts[start : start + 32]
        rngs = [torch.Generator().manual_seed(seed * 100_003 + start + k) for k in range(len(chunk))]
        settings: dict[str, Any] = {"generator": rngs, "output_type": "pt", "return_dict": False}
        result = pipeline(chunk, num_inference_steps=steps, guidance_scale=guidance, **settings)
        out.append(torch.as_tensor(result[0]) * 2 - 1)
    return torch.cat(out)


def _real(library: Library, wanted: list[tuple[str, str, str | None]]) -> Shown:
    """A real picture of each combination; where no style is asked for, the vendors take turns."""
    index = {(row.name, row.style): i for i, row in enumerate(library.rows)}
    pairs = [
        (index[name, style or STYLES[k % len(STYLES)]], BACKGROUND_NAMES.index(background))
        for k, (name, background, style) in enumerate(wanted)
    ]
    return show(library, pairs)


def judge_pictures(judge: Judge, wanted: list[tuple[str, str, str | None]], x: Tensor) -> dict[str, float]:
    """Mean and standard deviation of the reward, mean reward of a wrong prompt, retrieval @1."""
    texts = [prompt(*combination) for combination in wanted]
    scores = judge.scores(x, texts)
    shown = Shown(x, [w[0] for w in wanted], [w[1] for w in wanted], [w[2] or "" for w in wanted], texts)
    return {
        "reward": float(scores.mean()),
        "reward std": float(scores.std()),
        "wrong prompt": float(judge.scores(x, texts[1:] + texts[:1]).mean()),
        **retrieval(shown, judge.pictures, judge.captions),
    }


@torch.no_grad()
def measure_samples(
    pipeline: StableDiffusionPipeline, judge: Judge, library: Library, count: int = PER_SPLIT
) -> dict[str, dict[str, dict[str, float]]]:
    """split → source of the pictures → measurements; sources are real pictures and samples per guidance."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in ("train", "held-out"):
        wanted = combinations(heldout=split == "held-out")[:count]
        texts = [prompt(*combination) for combination in wanted]
        real = _real(library, wanted).pictures
        rebuilt = decode(pipeline.vae, encode(pipeline.vae, real).mean).clamp(-1, 1)
        sources = {"real": real, "real, through the autoencoder": rebuilt}
        for guidance in GUIDANCES:
            sources[f"guidance {guidance:g}"] = sample(pipeline, texts, guidance)
        found[split] = {name: judge_pictures(judge, wanted, x) for name, x in sources.items()}
    return found


def evaluate(work: Path, weights: Path, log: Callable[[str], None] = print) -> Path:
    """Measure the models in `weights/sd` and `weights/clip`; writes and logs `work/evaluation.json`."""
    library, others = load_library(work)
    train_library, unseen_renderings = split_renderings(library)
    _, unseen_emoji = split_unseen(others)
    pipeline, judge = load_pipeline(weights / "sd"), Judge.load(weights / "clip")
    found = {
        "autoencoder PSNR, dB": {
            "concepts": vae_psnr(pipeline.vae, library),
            "unseen emoji": vae_psnr(pipeline.vae, unseen_emoji),
        },
        "reward, retrieval @1 on real pictures": Retrieval(library, train_library, unseen_renderings).measure(
            judge.pictures, judge.captions
        ),
        "samples": measure_samples(pipeline, judge, library),
    }
    text = json.dumps(found, indent=1, default=float)
    log(text)
    target = work / "evaluation.json"
    target.write_text(text + "\n")
    return target
