"""Measure the flow-matching model beside the image model, and draw its samples.

Both are sampled through this package's chains, which equal diffusers' pipelines (tests) and are faster.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.data.prompts.emoji import combinations, heldout_prompts, prompt
from bench.models.config import ModelConfig, SolverName
from bench.models.image import ImageChain
from bench.models.latent_chain import LatentChain
from bench.models.sd3 import Sd3Chain
from scripts.embedded.evaluate import PER_SPLIT, Judge, judge_pictures
from scripts.embedded.sheet import SHOWN, draw_sheet

CPU = torch.device("cpu")
IMAGE_RUNS: tuple[tuple[int, float], ...] = ((20, 1.0), (20, 2.0))
FLOW_RUNS: tuple[tuple[int, float], ...] = ((10, 1.0), (10, 2.0), (20, 1.0))
"""Numbers of steps and guidance that samples are measured at."""


def load_chain(directory: Path, steps: int, guidance: float, solver: SolverName = "euler") -> LatentChain:
    """The chain of a pipeline directory, `sd` or `flow`; solver: the flow model's, the other's is DDIM."""
    if directory.name == "sd":
        return ImageChain.load(ModelConfig(path=directory, steps=steps, guidance=guidance), CPU)
    return Sd3Chain.load(
        ModelConfig(family="sd3", path=directory, steps=steps, guidance=guidance, solver=solver), CPU
    )


@torch.no_grad()
def sample_chain(chain: LatentChain, texts: list[str], eta: float = 0.0, seed: int = 0) -> Tensor:
    """Pictures in [−1, 1], [B, 3, 64, 64]; the k-th one's noise depends on seed and k only."""
    out = []
    for start in range(0, len(texts), 32):
        chunk = texts[start : start + 32]
        rngs = [torch.Generator().manual_seed(seed * 100_003 + start + k) for k in range(len(chunk))]
        state, cond = chain.prior(_noise(rngs, chain.latent_shape)), chain.condition(chunk)
        for i in range(chain.steps):
            step = chain.transition(state, i, cond, torch.full((len(chunk),), eta))
            x = step.mean + step.std * _noise(rngs, chain.latent_shape) if eta else step.mean
            state = step.next_state(x)
        out.append(chain.decode(state.x) * 2 - 1)
    return torch.cat(out)


def _noise(rngs: list[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randn(shape, generator=rng) for rng in rngs])


@torch.no_grad()
def milliseconds(chain: LatentChain, batch: int, repeats: int = 10) -> float:
    """Least CPU time of one evaluation of the network for `batch` pictures."""
    state, cond = (
        chain.prior(torch.randn(batch, *chain.latent_shape)),
        chain.condition(["a red apple"] * batch),
    )
    eta, found = torch.zeros(batch), []
    for _ in range(repeats):
        start = time.process_time()
        chain.transition(state, 0, cond, eta)
        found.append(time.process_time() - start)
    return 1e3 * min(found)


def evaluate_flow(work: Path, weights: Path, log: Callable[[str], None] = print) -> Path:
    """Measure `weights/flow` and `weights/sd` on the same prompts; writes `work/evaluation-flow.json`."""
    judge = Judge.load(weights / "clip")
    found: dict[str, dict[str, dict[str, float]]] = {"cpu-ms per evaluation": {}}
    for name, runs in (("sd", IMAGE_RUNS), ("flow", FLOW_RUNS)):
        chain = load_chain(weights / name, 10, 1.0)
        found["cpu-ms per evaluation"][name] = {f"batch {b}": milliseconds(chain, b) for b in (1, 8, 32)}
        for steps, guidance in runs:
            chain = load_chain(weights / name, steps, guidance)
            for split in ("train", "held-out"):
                wanted = combinations(heldout=split == "held-out")[:PER_SPLIT]
                pictures = sample_chain(chain, [prompt(*combination) for combination in wanted])
                row = judge_pictures(judge, wanted, pictures)
                found.setdefault(split, {})[f"{name}, {steps} steps, guidance {guidance:g}"] = row
                log(f"{name} {steps} steps guidance {guidance:g} {split} {row}")
    text = json.dumps(found, indent=1)
    target = work / "evaluation-flow.json"
    target.write_text(text + "\n")
    return target


def make_flow_sheet(weights: Path, target: Path) -> Path:
    """Sample the models in `weights/flow` and `weights/sd` and write the sheet as PNG to `target`."""
    texts, unseen = list(SHOWN), heldout_prompts()[:16]
    plain, image = load_chain(weights / "flow", 10, 1.0), load_chain(weights / "sd", 20, 1.0)
    guided = load_chain(weights / "flow", 10, 2.0)
    sections = [
        ("tiny-flow, 10 steps, guidance 1 (where fine-tuning starts)", sample_chain(plain, texts), texts),
        ("tiny, 20 steps, guidance 1", sample_chain(image, texts[:16]), texts[:16]),
        ("tiny-flow, 10 steps, guidance 2", sample_chain(guided, texts), texts),
        (
            "tiny-flow, combinations never trained on, 10 steps, guidance 1",
            sample_chain(plain, unseen),
            unseen,
        ),
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(sections).save(target)
    return target


def make_naming_sheets(weights: Path, work: Path, objects: int = 32) -> Path:
    """Pictures for somebody to name who has not seen the prompts: a sheet `naming-N.png` of both models at
    guidance 1 and 2 each, in an order that the numbers do not tell.

    Returns the key, `naming.json`: the model of every sheet, and the objects in the order of the pictures.
    """
    first = {combination[0]: combination for combination in reversed(combinations(heldout=False))}
    wanted = sorted(first.values(), key=lambda combination: prompt(*combination))
    order = torch.Generator().manual_seed(32)
    wanted = [wanted[k] for k in torch.randperm(len(wanted), generator=order)[:objects].tolist()]
    runs = [("sd", 20, 1.0), ("flow", 10, 1.0), ("sd", 20, 2.0), ("flow", 10, 2.0)]
    key: dict[str, dict[str, object]] = {}
    for number, run in enumerate(torch.randperm(len(runs), generator=order).tolist(), start=1):
        name, steps, guidance = runs[run]
        shown = [wanted[k] for k in torch.randperm(objects, generator=order).tolist()]
        pictures = sample_chain(load_chain(weights / name, steps, guidance), [prompt(*c) for c in shown])
        labels = [str(k + 1) for k in range(objects)]
        draw_sheet([(f"sheet {number}", pictures, labels)]).save(work / f"naming-{number}.png")
        model = f"{name}, {steps} steps, guidance {guidance:g}"
        key[str(number)] = {"model": model, "objects": [concept for concept, _, _ in shown]}
    (work / "naming.json").write_text(json.dumps(key, indent=1) + "\n")
    return work / "naming.json"
