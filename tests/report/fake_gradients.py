"""Made-up gradient profiles to develop and test the analysis on. Nothing in them was ever measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.engine.plan import Kind
from bench.experiment.settings import Choice, ModelChoice
from bench.measure.gradients.moments import TERMS, Draw, Moments
from bench.measure.gradients.store import FOLDER, INIT, ProbeConfig, ProbeDir, probe_id
from bench.models.config import ModelConfig
from bench.run.store import WorkState

STEPS, DIM = 6, 8
MEGABYTE = 2**20


@dataclass(frozen=True)
class Fake:
    """How a made-up estimator behaves: factor on the exact gradient, noise relative to it, and its terms."""

    scale: float = 1.0
    noise: float = 1.0
    kinds: tuple[Kind, ...] = (Kind.FO,)
    biased: bool = False
    seconds: float = 1.0
    memory: int = 100


FAKES = {
    "full_bp": Fake(noise=0.0, seconds=3.0),
    "rlr": Fake(noise=40.0, kinds=(Kind.HO, Kind.ZO), seconds=2.0, memory=300),
    "truncated_bp": Fake(scale=0.3, noise=0.05, biased=True),
}


def write(
    root: Path,
    fakes: dict[str, Fake] | None = None,
    places: Sequence[tuple[str, int]] = ((INIT, 0),),
    draws: int = 96,
    states: dict[str, WorkState] | None = None,
) -> Path:
    """Profiles below root/gradients. places: (θ, seed); states: by method, else `done`."""
    for at, seed in places:
        for name, fake in (FAKES if fakes is None else fakes).items():
            found = config(name, fake, at, seed)
            probe = ProbeDir(root / FOLDER / probe_id(found))
            probe.write_config(found)
            probe.save(moments(fake, draws, seed), {})
            state = states[name] if states and name in states else WorkState.DONE
            probe.write_status(state, draws, 1.0, None if state is WorkState.DONE else "out of memory")
            env = {"command": f"python -m bench gradients --seed {seed}", "python": "3.11.2"}
            (probe.path / "env.json").write_text(json.dumps(env))
    return root


def config(name: str, fake: Fake, at: str = INIT, seed: int = 0, **settings: float) -> ProbeConfig:
    """Resolved settings of a profile."""
    return ProbeConfig(
        method=Choice(name=name, config={"eta": 0.0, **settings}),
        base=name,
        biased=fake.biased,
        aliases=(),
        model=ModelChoice(name="tiny", config=ModelConfig(family="image", source="embedded:sd", steps=STEPS)),
        reward=Choice(name="clip", config={}),
        prompts="emoji",
        prompts_per_step=4,
        samples_per_prompt=2,
        micro_batch=4,
        seed=seed,
        at=at,
        threads=1,
        digests={} if at == INIT else {"lora": at},
    )


def moments(fake: Fake, draws: int, seed: int) -> Moments:
    """Sums over noisy multiples of an exact gradient whose parts add up over the steps."""
    generator = torch.Generator().manual_seed(seed)
    exact = torch.randn(STEPS, DIM, generator=generator)
    exact /= exact.sum(0).norm()
    sums = Moments(DIM, STEPS)
    for _ in range(draws):
        luck = exact + 0.2 * torch.randn(STEPS, DIM, generator=generator) / STEPS
        sums.add(_draw(fake, luck, generator))
    sums.idle_memory, sums.peak_memory = 500 * MEGABYTE, (500 + fake.memory) * MEGABYTE
    return sums


def _draw(fake: Fake, exact: torch.Tensor, generator: torch.Generator) -> Draw:
    parts = {}
    for i in range(STEPS):
        kind = fake.kinds[i % len(fake.kinds)]
        noise = fake.noise * torch.randn(DIM, generator=generator) / (STEPS * DIM) ** 0.5
        parts[kind, i] = fake.scale * exact[i] + noise
    return Draw(
        gradient=torch.stack(list(parts.values())).sum(0),
        parts=parts,
        exact=dict(enumerate(exact)),
        deterministic=True,
        occupancy=torch.ones(len(TERMS), STEPS),
        plain=True,
        seconds=fake.seconds,
        forward=48,
        backward=48,
        reward=0.5,
    )
