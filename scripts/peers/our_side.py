"""The other side: this program's engine with the same task, and the check that gradients agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.engine.batch import Batch
from bench.engine.likelihood_ratio import Ppo
from bench.engine.plan import Kind, tiled
from bench.experiment.choices import load_reward
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.measure.cost.step import Subject, step, subject_of, trained
from bench.run.load import load_chain
from scripts.peers import task

OURS = {"ddpo": "ddpo", "alignprop": "truncated_bp", "full_bp": "full_bp"}


def subject(method: str, steps: int, batch: int) -> Subject:
    """Model, reward, engine and optimizer, as a cell has them."""
    torch.set_num_threads(1)
    reward = "python:scripts.peers.task.redness"
    settings = [
        f"model.steps={steps}",
        f"model.guidance={task.GUIDANCE}",
        f"model.lora.rank={task.RANK}",
        f"train.batch_size={batch}",
        "train.samples_per_prompt=1",
        f"train.micro_batch={batch}",
        f"train.lr={task.LR}",
        "eval.rewards=[]",
        *([f"truncated_bp.k={task.TRUNCATION}"] if method == "alignprop" else []),
    ]
    options = Options(
        methods=OURS[method],
        model="tiny",
        reward=reward,
        settings=(*settings, "reward.differentiable=true"),
    )
    (cell,) = [c for c in resolve_all(build(options).combinations) if c.config.training is not None]
    training = trained(cell.config)
    device = torch.device("cpu")
    chain = load_chain(cell.config.model.config, device)
    return subject_of(cell.config, training, chain, load_reward(training.reward, device))


def batches(size: int) -> Any:
    """Batches of the task's prompts."""
    prompts = itertools.cycle(task.PROMPTS)
    return (Batch(tuple(itertools.islice(prompts, size)), k) for k in itertools.count())


def disagreement(found: dict[str, Any], method: str, steps: int) -> tuple[float, float]:
    """Of our gradient from TRL's at its parameters, noise, advantages: (1 - cosine, ratio of norms - 1)."""
    ours = subject(method, steps, len(found["prompts"]))
    chain: Any = ours.chain
    named = {name: p for name, p in chain.network.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for name, value in found["parameters"].items():
            named[name].copy_(value)
    prompts = tuple(found["prompts"])
    noise = _noise(chain, prompts, found)

    def draw(keys: Sequence[tuple[int | str, ...]], *_: Any) -> Tensor:
        return torch.stack([noise[int(key[-1])][int(key[3])] for key in keys])

    engine = ours.engine
    engine.roller.draw = draw
    if method == "ddpo":
        plan = tiled([Kind.HO] * steps, [1.0] * steps)
        trajectory = engine.rollout([plan] * len(prompts), Batch(prompts, 0))
        engine.gradient(trajectory, found["advantages"].float(), ppo=Ppo(1e-4, mean=True))
        scale = steps  # TRL takes the mean over the steps, this program the sum
    else:
        cut = steps - task.TRUNCATION
        plan = tiled([Kind.SKIP] * cut + [Kind.FO] * task.TRUNCATION, [0.0] * steps)
        trajectory = engine.rollout([plan] * len(prompts), Batch(prompts, 0))
        engine.gradient(trajectory, trajectory.signed)
        scale = 1
    names = list(found["gradient"])
    mine = torch.cat([named[name].grad.flatten() for name in names]).double() / scale  # type: ignore[union-attr]
    theirs = torch.cat([found["gradient"][name].flatten() for name in names]).double()
    cosine = float(torch.dot(mine, theirs) / mine.norm() / theirs.norm())
    return 1 - cosine, float(mine.norm() / theirs.norm()) - 1


@torch.no_grad()
def _noise(chain: Any, prompts: tuple[str, ...], found: dict[str, Any]) -> dict[int, Tensor]:
    """By step (-1: x_T) the noise that leads through TRL's states."""
    from bench.engine.chain import State

    if "states" not in found:
        return {-1: found["x_T"]}
    states, cond = found["states"], chain.condition(prompts)
    noise, eta = {-1: states[:, 0]}, torch.ones(len(prompts))
    for i in range(chain.steps):
        made = chain.transition(State(states[:, i]), i, cond, eta)
        noise[i] = (states[:, i + 1] - made.mean) / made.std
    return noise


def main() -> None:
    """As `task.arguments` says."""
    asked = task.arguments()
    made, several = subject(asked.method, asked.steps, asked.batch), batches(asked.batch)
    made.engine.graphs.keep = asked.graphs
    task.timed(lambda: step(made, next(several)), asked.count).write(asked.out)


if __name__ == "__main__":
    main()
