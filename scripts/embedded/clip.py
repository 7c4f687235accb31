"""The reward: a small CLIP trained on the same pictures and captions as the image model."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from scripts.embedded.clip_data import Batch, BatchMaker, split_renderings
from scripts.embedded.compose import load_library
from scripts.embedded.loop import Schedule, Training, train
from scripts.embedded.muon import MuonAdam
from scripts.embedded.retrieval import Retrieval
from scripts.embedded.tokenizer import MAX_LENGTH, special_ids

WIDTH = 128
PATCH = 16
PROJECTION = 96
BATCH = 128
RUINED_PER_BATCH = 12
HARD_FROM = 2500
"""Step from which batches repeat objects, so that style and placement have to be told apart."""
MAX_SCALE = 50.0
"""Upper bound of the learnt inverse temperature."""


def build_clip(tokenizer: CLIPTokenizer, patch: int = PATCH) -> CLIPModel:
    """A fresh CLIP for 64×64 pictures, initialised from torch's global generator (seed it first)."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "projection_dim": PROJECTION,
        **special_ids(tokenizer),
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": patch,
        "projection_dim": PROJECTION,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION))
    with torch.no_grad():
        # With the default 0.02, captions of so narrow a model start out all alike.
        model.text_model.embeddings.token_embedding.weight.normal_(0, 0.3)
    return model


def embed_pictures(model: CLIPModel, pictures: Tensor) -> Tensor:
    """Unit vectors [B, 96] of pictures [B, 3, 64, 64] in [−1, 1]."""
    pooled = model.vision_model(pixel_values=pictures).pooler_output
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def embed_captions(model: CLIPModel, tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Unit vectors [B, 96] of captions."""
    batch = tokenizer(
        captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    )
    pooled = model.text_model(**batch).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)


def contrastive_loss(pictures: Tensor, captions: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy in which every true pair is a target.

    pictures [B + R, D] and captions [B, D] unit vectors, truth [B, B]; the last R pictures fit no caption.
    """
    logits = scale * pictures @ captions.T
    described = len(captions)
    by_picture = functional.log_softmax(logits[:described], 1)
    by_caption = functional.log_softmax(logits, 0)[:described]
    weights = truth.float()
    picture_targets = weights / weights.sum(1, keepdim=True)
    caption_targets = weights / weights.sum(0, keepdim=True)
    return -0.5 * (
        (picture_targets * by_picture).sum(1).mean() + (caption_targets * by_caption).sum(0).mean()
    )


def batch_loss(model: CLIPModel, tokenizer: CLIPTokenizer, batch: Batch) -> Tensor:
    """Contrastive loss of one batch."""
    scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
    pictures = embed_pictures(model, batch.pictures)
    return contrastive_loss(pictures, embed_captions(model, tokenizer, batch.captions), batch.truth, scale)


def train_clip(
    work: Path,
    steps: int,
    seed: int,
    log: Callable[[str], None] = print,
    milestones: tuple[int, ...] = (),
    decay: int = 0,
) -> Path:
    """Train the reward from `work/vae` and `work/tokenizer`; snapshots go to `work/reward-training`."""
    library, _ = load_library(work)
    train_library, unseen = split_renderings(library)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    maker = BatchMaker(train_library, vae, seed + 1)
    torch.manual_seed(seed)
    model = build_clip(tokenizer)
    log(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters,"
        f" {len(unseen)} unseen renderings"
    )
    adam_only = ("embedding", "logit_scale")
    optimizer = MuonAdam(
        model.named_parameters(), lr=0.02, adam_lr=2e-3, weight_decay=0.1, adam_only=adam_only
    )
    training = Training(model, optimizer, seed)

    def loss(training: Training) -> Tensor:
        hard = training.step >= HARD_FROM
        batch = maker.draw(BATCH, RUINED_PER_BATCH, training.numpy_rng, training.torch_rng, hard)
        return batch_loss(model, tokenizer, batch)

    sets = Retrieval(library, train_library, unseen)

    def report(_: Training) -> str:
        return sets.summary(
            lambda x: embed_pictures(model, x), lambda texts: embed_captions(model, tokenizer, texts)
        )

    start = time.process_time()
    train(
        training,
        loss,
        Schedule(steps, decay=decay),
        work / "reward-training",
        log=log,
        milestones=milestones,
        report=report,
        report_every=1000,
    )
    log(f"cpu-s {time.process_time() - start:.0f}")
    return work / "reward-training"
