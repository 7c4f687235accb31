"""Held-out evaluation, the same for every method and for the base model.

A picture is fixed by (seed, place of the prompt in the list, number of the picture): these key its starting
noise, and the chain runs without noise (eta = 0). So methods are compared picture by picture, whatever the
batch size, and neither torch's global generators nor the streams of training move.

Diversity is reported next to the rewards, as rows named "diversity": the mean distance of a picture to the
other pictures of its prompt. It falls when a model collapses to one picture per prompt; no reward shows that.
Distance is 1 - cosine of image features (0 equal, 1 unrelated) if one of the rewards has features, as `clip`
has; else the root-mean-square difference of the pictures averaged down to 8×8 pixels, in [0, 1]. Every such
row says which under "features": the reward's name, or "pixels". The features themselves are part of what is
found: how far training has moved a picture from the base model's is their distance, across cells.

All of this holds for videos, too: a reward of pictures scores a video by the mean over its frames, features
are those of the frames, averaged, and pixels are those of all frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from bench.base.errors import BenchError
from bench.base.files import Record
from bench.base.media import to_bytes
from bench.engine.at_once import AtOnce, Setting, split
from bench.engine.batch import Start
from bench.engine.chain import Chain
from bench.engine.finite import check_latents
from bench.engine.random_streams import normal
from bench.engine.reward import Reward, scores
from bench.engine.world import World
from bench.run.evaluations import DIVERSITY
from bench.run.features import PIXELS, Features, distance

POOLED = 8  # pixels per side that pictures are averaged down to for their distance

Improve = Callable[[Start], Tensor]  # → noise [B, *latent_shape] of the same pictures


@runtime_checkable
class HasImageFeatures(Protocol):
    """A reward that can embed pictures."""

    def image_features(self, media: Tensor) -> Tensor:
        """Unit-norm embeddings [B, D] of media in [0, 1]."""
        ...


class Summary(NamedTuple):
    """Mean over pictures; standard error over prompts (over pictures if there is one prompt), nan for one."""

    mean: float
    se: float


class _Part(NamedTuple):
    """Pictures from `start` on: their scores [count] by reward, features [count, D], and those to keep."""

    start: int
    scores: dict[str, Tensor]
    features: Tensor
    kept: list[Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What evaluate() found.

    rows: {"prompt", "index", "reward", "score"} per picture and reward, index counting a prompt's pictures;
    diversity rows come last and also have "features". images: uint8 [kept, 3, H, W], the first picture of
    each of the first prompts; of videos [kept, F, 3, H, W]. features: of all pictures, in the order of rows.
    """

    rows: list[Record]
    images: Tensor
    features: Features


def summary(rows: Sequence[Record]) -> dict[str, Summary]:
    """Of an evaluation's rows, per reward and for diversity."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["reward"], {}).setdefault(row["prompt"], []).append(row["score"])
    return {reward: _summary(list(by_prompt.values())) for reward, by_prompt in scores.items()}


def evaluate(
    chain: Chain,
    rewards: Mapping[str, Reward],
    prompts: Sequence[str],
    *,
    seed: int,
    batch: Setting,
    images_per_prompt: int,
    keep: int = 8,
    improve: Improve | None = None,
    world: World | None = None,
) -> Evaluation:
    """Make images_per_prompt pictures of each prompt, `batch` at a time, and score them by every reward.

    batch: `auto` is all of them, fewer where memory runs out. keep: how many prompts' first picture to keep.
    improve: chooses other starting noise, with all processes together. world: processes that share the
    batches otherwise; each gets the whole result, that of one process. It may ask to leave the evaluation
    before each step of the chain. No gradient. Raises BenchError, in all processes, on a score or features
    that are not finite, and without a prompt or with one that occurs twice (rows could not be distinguished).
    """
    if not prompts or len(set(prompts)) < len(prompts):
        raise BenchError("evaluation needs at least one prompt, and no prompt twice")
    if images_per_prompt < 1 or keep < 0 or DIVERSITY in rewards:
        raise ValueError(f"{images_per_prompt=} {keep=} rewards={list(rewards)}")
    embedder, embed = _features(rewards)
    pictures = [(p, k) for p in range(len(prompts)) for k in range(images_per_prompt)]
    at_once, world = AtOnce(batch, "eval.batch"), world or World()
    sharing = world if improve is None else World()

    def look(start: int, count: int) -> _Part:
        world.check()
        part = pictures[start : start + count]
        texts = [prompts[p] for p, _ in part]
        x = noise(chain, seed, part)
        if improve is not None:
            x = improve(Start(tuple(texts), x, seed, tuple(part)))
        media = sample_images(chain, texts, x, world)
        table = {name: checked_scores(name, reward, media, texts) for name, reward in rewards.items()}
        features = _checked_features(embedder, embed(media), texts)
        first = [m for m, (p, k) in zip(media, part, strict=True) if k == 0 and p < keep]
        return _Part(start, table, features.cpu(), [to_bytes(m).cpu() for m in first])

    each = at_once.of(-(-len(pictures) // sharing.size) if at_once.auto else len(pictures))
    mine = split(len(pictures), each)[sharing.rank :: sharing.size]
    parts = _gathered(sharing, lambda: _parts(at_once, mine, look))
    table = {name: torch.cat([part.scores[name] for part in parts]).tolist() for name in rewards}
    features = Features(embedder, torch.cat([part.features for part in parts]).numpy())
    kept = [image for part in parts for image in part.kept]
    rows = [
        {"prompt": prompts[p], "index": k, "reward": name, "score": table[name][n]}
        for n, (p, k) in enumerate(pictures)
        for name in rewards
    ]
    if images_per_prompt > 1:
        rows += _diversity_rows(features, prompts)
    return Evaluation(rows, torch.stack(kept) if kept else torch.empty(0, dtype=torch.uint8), features)


def _parts(at_once: AtOnce, batches: Sequence[range], look: Callable[[int, int], _Part]) -> list[_Part]:
    """The batches, each in several parts where memory runs out."""
    parts = list[_Part]()
    with torch.no_grad():
        for batch in batches:
            start = batch.start
            while start < batch.stop:
                parts.append(at_once.run(batch.stop - start, partial(look, start)))
                start += len(parts[-1].features)
    return parts


def _gathered(world: World, look: Callable[[], list[_Part]]) -> list[_Part]:
    """All processes' parts in order. What one of them raised is raised by all, so that none waits for it."""
    try:
        mine: list[_Part] | BenchError = look()
    except BenchError as error:
        mine = error
    parts = list[_Part]()
    for found in world.gather_each(mine):
        if isinstance(found, BenchError):
            raise found
        parts += found
    return sorted(parts, key=lambda part: part.start)


def noise(chain: Chain, seed: int, pictures: Sequence[tuple[int, int]]) -> Tensor:
    """Starting noise [B, *latent_shape] of pictures (place of the prompt, number of the picture).

    Drawn on the CPU, so that all machines make the same pictures.
    """
    keys = [("evaluate", seed, p, k) for p, k in pictures]
    return normal(keys, chain.latent_shape, torch.device("cpu")).to(chain.device)


def sample_images(chain: Chain, prompts: Sequence[str], noise: Tensor, world: World | None = None) -> Tensor:
    """Media [B, …] in [0, 1] by the deterministic chain (eta = 0), from noise [B, *latent_shape].

    world: may ask to leave before each step. Grad mode belongs to the caller. Raises NotFinite for latents
    that are not finite.
    """
    condition, state, world = chain.condition(prompts), chain.prior(noise), world or World()
    eta = torch.zeros(len(prompts), device=chain.device)
    latents: list[Tensor] = []
    for i in range(chain.steps):
        world.check()
        step = chain.transition(state, i, condition, eta)
        state = step.next_state(step.mean)
        latents.append(state.x.detach())
    check_latents(latents, prompts)
    return chain.decode(state.x)


def checked_scores(name: str, reward: Reward, media: Tensor, texts: Sequence[str]) -> Tensor:
    """Scores [B] on the CPU, with the reward's graph. Raises BenchError unless they are B finite numbers."""
    score = scores(reward, media, texts)
    if score.shape != (len(texts),):
        raise BenchError(
            f"reward '{name}' returned {list(score.shape)} for {len(texts)} images, not one each"
        )
    score = score.double().cpu()
    if not bool(torch.isfinite(score).all()):
        bad = texts[int((~torch.isfinite(score)).nonzero()[0])]
        raise BenchError(f"reward '{name}' is not finite on a picture of {bad!r}")
    return score


def _features(rewards: Mapping[str, Reward]) -> tuple[str, Any]:
    """Name and function of the features that diversity is measured in: media → [B, D]."""
    for name, reward in rewards.items():
        if isinstance(reward, HasImageFeatures):
            return name, partial(_embedded, reward)
    return PIXELS, _pixels


def _embedded(reward: HasImageFeatures, media: Tensor) -> Tensor:
    """Embeddings [B, D] of images, or of videos the mean of their frames'."""
    own = media.clone()  # as for scores: what a reward writes into its input is nobody else's
    if media.ndim != 5:
        return reward.image_features(own)
    return reward.image_features(own.flatten(0, 1)).unflatten(0, media.shape[:2]).mean(dim=1)


def _pixels(media: Tensor) -> Tensor:
    """Media averaged down to 8×8, flattened and scaled: Euclidean distance is the RMS difference. [B, D]."""
    pooled = media.float()
    if media.ndim >= 4:  # pictures, or all frames of videos
        pictures = pooled.reshape(-1, *media.shape[-3:])
        pooled = adaptive_avg_pool2d(pictures, POOLED).reshape(*media.shape[:-2], POOLED, POOLED)
    return pooled.flatten(1) / math.sqrt(pooled[0].numel())


def _checked_features(name: str, features: Tensor, texts: Sequence[str]) -> Tensor:
    """Features [B, D] on the CPU, float32. Raises BenchError unless they are that, and finite."""
    if features.ndim != 2 or len(features) != len(texts):
        raise BenchError(
            f"'{name}' returned image features {list(features.shape)} for {len(texts)} images, not [B, D]"
        )
    features = features.float().cpu()
    bad = (~torch.isfinite(features)).any(dim=1).nonzero()[:, 0].tolist()
    if bad:
        raise BenchError(f"image features of '{name}' are not finite on a picture of {texts[bad[0]]!r}")
    return features


def _diversity_rows(features: Features, prompts: Sequence[str]) -> list[Record]:
    """One row per picture: its mean distance to the others of its prompt."""
    name, values = features
    rows: list[Record] = []
    for prompt, group in zip(prompts, np.split(values, len(prompts)), strict=True):
        apart = distance(group[:, None], group[None], name).sum(axis=1) / (len(group) - 1)
        rows += [
            {"prompt": prompt, "index": k, "reward": DIVERSITY, "score": score, "features": name}
            for k, score in enumerate(apart.tolist())
        ]
    return rows


def _summary(by_prompt: list[list[float]]) -> Summary:
    """by_prompt: the scores of each prompt's pictures, equally many."""
    units = [sum(s) / len(s) for s in by_prompt] if len(by_prompt) > 1 else by_prompt[0]
    mean = sum(units) / len(units)
    if len(units) < 2:
        return Summary(mean, math.nan)
    variance = sum((u - mean) ** 2 for u in units) / (len(units) - 1)
    return Summary(mean, math.sqrt(variance / len(units)))
