"""A made-up results directory to develop and test the analysis on. Nothing in it was ever measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from bench.run import features

PROMPTS = [
    "a dog face on a blue background, twemoji style",
    "a red apple on a yellow background",
    "a small rocket to the left on a black background, noto style",
    "a tilted guitar on a green background",
    "an octopus on a pink background, fluent style",
    "a sunflower on a gray background",
    "a large tropical fish on a purple background",
    "a key on a white background, noto style",
    "a ghost on an orange background",
    "a bicycle on a red background, fluent style",
]
REWARDS = ("clip", "colourfulness", "jpeg")
COLOURS = [
    "#528ae2",
    "#fadc5a",
    "#18181c",
    "#5cb45c",
    "#f6a5c3",
    "#96969b",
    "#9864c8",
    "#ffffff",
    "#f7963c",
    "#e23e3e",
]


@dataclass(frozen=True)
class Fight:
    """How a made-up method behaves: its final gain and how fast it comes, what a step costs, its terms."""

    gain: float
    pace: float
    seconds: float
    forward: int
    backward: int
    terms: dict[str, float] = field(default_factory=dict)
    diversity: float = 0.0


DRIFT = 0.02  # of a picture's features from the base model's at each step, in units of their own length
FIGHTS = {
    "rlr": Fight(-0.03, 30.0, 1.6, 176, 24, {"fo": 0.04, "ho": 7.0, "zo": 14.0}),
    "ddpo": Fight(0.028, 40.0, 2.0, 320, 160, {"ho": 3.0}, -0.02),
    "alignprop": Fight(0.105, 12.0, 1.1, 210, 50, {"fo": 0.06}, -0.06),
    "vader": Fight(0.10, 14.0, 0.9, 168, 8, {"fo": 0.05}, -0.05),
    "zo": Fight(0.006, 60.0, 1.3, 160, 0, {"zo": 20.0}),
    "truncated_bp": Fight(0.108, 11.0, 1.0, 200, 40, {"fo": 0.055}, -0.07),
    "random-direction": Fight(0.004, 60.0, 0.8, 160, 0, {"random": 50.0}),
    "full_bp": Fight(0.112, 10.0, 2.4, 320, 160, {"fo": 0.08}, -0.08),
}


def write(
    root: Path,
    methods: Sequence[str] = tuple(name for name in FIGHTS if name != "random-direction"),
    seeds: Sequence[int] = (0,),
    steps: int = 60,
    states: dict[str, str] | None = None,
    pictures: bool = True,
) -> Path:
    """A results directory with a base cell and one per method and seed; states: by method, else `done`."""
    rng = np.random.default_rng(7)
    request = {"methods": list(methods), "model": "tiny", "seeds": list(seeds), "threads": 1, "settings": {}}
    root.mkdir(parents=True, exist_ok=True)
    (root / "experiment.yaml").write_text(yaml.safe_dump(request))
    level = {r: rng.normal(m, s, (len(PROMPTS), 2)) for r, m, s in _levels()}
    _cell(root, "base-tiny-00000000", config(None, 0), "done", [], _evals(level, None, [0], rng), pictures)
    for method in methods:
        state = states[method] if states and method in states else "done"
        for seed in seeds:
            fight = FIGHTS[method]
            reached = {"done": steps, "pending": 0}.get(state, steps // 2)
            at = [] if state == "pending" else list(range(10, reached + 1, 10))
            cell = f"{method}-tiny-clip-s{seed}-{abs(hash_of(method, seed)):08x}"
            evals = _evals(level, fight, at, rng)
            _cell(root, cell, config(method, seed), state, _metrics(fight, reached, rng), evals, pictures)
    return root


def _levels() -> list[tuple[str, float, float]]:
    return [
        ("clip", 0.68, 0.06),
        ("colourfulness", 55.0, 12.0),
        ("jpeg", -2.1, 0.3),
        ("diversity", 0.41, 0.05),
    ]


def hash_of(method: str, seed: int) -> int:
    """A stable stand-in for the hash in a cell's id."""
    return sum(ord(c) * 31**n for n, c in enumerate(f"{method}{seed}")) % 2**32


def config(method: str | None, seed: int, **settings: Any) -> dict[str, Any]:
    """A resolved cell config; settings go to the method."""
    reward = {"name": "clip", "config": {"source": "embedded:clip"}}
    training = {
        "method": {"name": method, "config": settings},
        "reward": reward,
        "seed": seed,
        "train": {"steps": 60, "lr": 5e-4, "optimizer": "adam"},
    }
    return {
        "schema_version": 1,
        "training": training if method else None,
        "model": {"name": "tiny", "config": {"family": "image", "steps": 20, "guidance": 1.0}},
        "prompts": "emoji",
        "eval": {
            "prompts": len(PROMPTS),
            "images_per_prompt": 2,
            "batch": 8,
            "seed": 1234,
            "samples": 8,
            "rewards": [],
        },
        "eval_rewards": [reward, *({"name": r, "config": {}} for r in REWARDS[1:])],
        "threads": 1,
        "digests": {"model": "0" * 64},
    }


def _metrics(fight: Fight, steps: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for n in range(1, steps + 1):
        noisy = {k: v * math.exp(rng.normal(0, 0.4)) for k, v in fight.terms.items()}
        rows.append(
            {
                "step": n,
                "reward_mean": 0.68 + fight.gain * (1 - math.exp(-n / fight.pace)) + rng.normal(0, 0.012),
                "reward_std": 0.06,
                "grad_norm": math.hypot(*noisy.values()),
                "seconds": n * fight.seconds,
                "nfe_forward": n * fight.forward,
                "nfe_backward": n * fight.backward,
                "nfe_again": n * fight.backward // 2,
                "memory": int(4.1e8 + 1e6 * fight.backward),
                "samples": 8 * n,
                "terms": {k: {"norm": v, "variance": None} for k, v in noisy.items()},
            }
        )
    return rows


def _evals(
    level: dict[str, Any], fight: Fight | None, at: list[int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for step in at:
        for reward, base in level.items():
            gain = {"clip": 1.0, "colourfulness": 60.0, "jpeg": -1.0}.get(reward, 0.0) * (
                fight.gain if fight else 0
            )
            if fight and reward == "diversity":
                gain = fight.diversity
            grown = gain * (1 - math.exp(-step / fight.pace)) if fight else 0.0
            if reward == "diversity":
                rows.append(
                    {"step": step, "prompt": None, "image": None, "reward": reward, "score": 0.41 + grown}
                )
                continue
            noise = 0.25 * float(np.std(base)) * rng.normal(size=base.shape) if fight else np.zeros_like(base)
            for (p, i), score in np.ndenumerate(base + grown + noise):
                rows.append(
                    {"step": step, "prompt": PROMPTS[p], "image": i, "reward": reward, "score": float(score)}
                )
    return rows


def _cell(
    root: Path,
    name: str,
    settings: dict[str, Any],
    state: str,
    metrics: list[dict[str, Any]],
    evals: list[dict[str, Any]],
    pictures: bool,
) -> None:
    path = root / "cells" / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    env = {
        "command": "python -m bench run --methods all --out results/fake",
        "python": "3.11.2",
        "packages": {"torch": "2.13.0"},
        "git": {"commit": "0" * 40, "dirty": False},
    }
    (path / "env.json").write_text(json.dumps(env))
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
    (path / "eval.jsonl").write_text("".join(json.dumps(r) + "\n" for r in evals))
    if state == "failed":
        (path / "traceback.txt").write_text(
            "Traceback (most recent call last):\nRuntimeError: NaN reward at step 31\n"
        )
    for step in sorted({r["step"] for r in evals}):
        features.write(path / "features", step, features.Features("clip", _features(step)))
        if pictures:
            _draw(path / "samples" / f"{step:06d}", hash_of(name, step) % 97)
    if state != "pending":
        (path / "status.json").write_text(json.dumps({"state": state, "step": len(metrics)}))


def _features(step: int) -> np.ndarray:
    """[pictures, 6]: orthogonal to what training adds to them."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(2 * len(PROMPTS), 5))
    added = DRIFT * step * np.linalg.norm(base, axis=1, keepdims=True)
    return np.hstack([base, added]).astype(np.float32)


def _draw(folder: Path, jitter: int) -> None:
    folder.mkdir(parents=True)
    for n, colour in enumerate(COLOURS[:8]):
        image = Image.new("RGB", (64, 64), colour)
        r = 14 + (jitter * (n + 3)) % 9
        ImageDraw.Draw(image).ellipse(
            (32 - r, 32 - r, 32 + r, 32 + r), fill=COLOURS[(n + 3) % 10], outline="#222"
        )
        image.save(folder / f"{n}.png")
