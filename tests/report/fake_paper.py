"""Made-up cells of the RLR paper's experiments. Nothing in them was ever measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PROMPTS = ("a", "b", "c", "d")
REWARDS = {
    "pickscore": {"scale": "logit"},
    "hpsv2": {"scale": "x100"},
    "aes": {},
    "imagereward": {},
}
BATCH = {"prompts_per_step": 4, "samples_per_prompt": 2}
WEIGHTS = {"fo": 1.0, "ho": 1.0, "zo": 1.0}
SPREAD = (-1.0, 1.0, -0.5, 0.5)  # of the prompts' scores around their mean


def rlr(h: int = 2, completion: str = "zo", **more: Any) -> dict[str, Any]:
    """Settings of RLR as the paper has them."""
    return {"h": h, "completion": completion, "eta": 0.1, "scale": 1e-3, "weights": WEIGHTS, **more}


def cell(
    root: Path,
    method: str | None,
    scores: Mapping[str, float],
    *,
    reward: str = "hpsv2",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    model: str = "sd14",
    prompts: str = "hpdv2",
    command: str = "python -m bench run --config table5",
    state: str = "done",
    solver: str = "ddim",
    steps: int = 50,
    dcot: bool = False,
    lr: float = 5e-4,
    rewards: Mapping[str, Mapping[str, Any]] = REWARDS,
    evaluations: Sequence[tuple[int, float]] = (),
    digest: str = "0" * 16,
) -> None:
    """One cell whose held-out scores have these means; method None: the base model.

    evaluations: (step, added to all means); without any one at step 10.
    """
    choices = [{"name": name, "config": dict(config)} for name, config in rewards.items()]
    training = {
        "method": {"name": method, "config": dict(settings or {})},
        "reward": {"name": reward, "config": dict(rewards[reward]) if method else {}},
        "seed": seed,
        "train": {"steps": 10, "lr": lr, "optimizer": "adam", **BATCH},
    }
    config = {
        "schema_version": 1,
        "training": training if method else None,
        "model": {"name": model, "config": {"solver": solver, "steps": steps, "guidance": 7.5}},
        "prompts": prompts,
        "eval": {"prompts": len(PROMPTS), "images_per_prompt": 1, "seed": 1234, "rewards": []},
        "eval_rewards": choices,
        "dcot": {"boundaries": [1 / 3, 2 / 3]} if dcot else None,
        "threads": 1,
        "digests": {"model": digest, "prompts": prompts},
    }
    at = evaluations or ([(10, 0.0)] if method else [(0, 0.0)])
    marks = f"{model}-{prompts}-{reward}-{solver}-{dcot}-{lr}-{json.dumps(settings)}-{command}-{digest}"
    unlike = sum(ord(c) * 31**n for n, c in enumerate(marks)) % 2**32
    path = root / "cells" / f"{method or 'base'}-s{seed}-{unlike:08x}"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "env.json").write_text(json.dumps({"command": command}))
    (path / "status.json").write_text(json.dumps({"state": state, "step": at[-1][0]}))
    _write_logs(path, scores, at)


def _write_logs(path: Path, scores: Mapping[str, float], at: Sequence[tuple[int, float]]) -> None:
    evals = [
        {"step": step, "prompt": prompt, "image": 0, "reward": name, "score": mean + added + off}
        for step, added in at
        for name, mean in scores.items()
        for prompt, off in zip(PROMPTS, SPREAD, strict=True)
    ]
    metrics = [
        {"step": n, "samples": 8 * n, "seconds": 60.0 * n, "memory": 20_000_000_000, "terms": {}}
        | {"nfe_forward": n, "nfe_backward": n, "nfe_again": 0, "reward_mean": 0.0, "reward_std": 1.0}
        for n in range(1, at[-1][0] + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evals))
