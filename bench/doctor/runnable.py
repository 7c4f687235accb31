"""What can run here: model × reward × class of method, and what to type about what cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench import method_files, registry
from bench.doctor.machine import GIB, available_memory
from bench.doctor.packages import lacking_for
from bench.models.config import ModelConfig
from bench.parts import model_file
from bench.pieces import ALL, Piece, complete, reward_list
from bench.reward import is_differentiable
from bench.settings import TrainConfig
from bench.sizes import Use, memory


@dataclass(frozen=True)
class Room:
    """What a cell may take: of the roomiest GPU, or of main memory."""

    gpu: bool
    gib: float


NO_GRADIENT = "no gradient: choose ddpo, reinforce or zo, or rlr with --set rlr.fo=false"
REWARDS = "<rewards>"  # in what to type: stands for the names of the rewards that it is for


class Answer(NamedTuple):
    """One cell of the table, and what to type about it (empty: nothing)."""

    text: str
    fix: str = ""


def room() -> Room:
    """Of this machine, now."""
    import torch

    if torch.cuda.is_available():
        free = [torch.cuda.mem_get_info(n)[0] for n in range(torch.cuda.device_count())]
        return Room(True, max(free) / GIB)
    return Room(False, available_memory() / GIB)


def classes(methods: Sequence[str], model: str) -> tuple[list[str], list[str]]:
    """(methods that need the reward's gradient, those that do not), as they ship for a model."""
    needing, others = list[str](), list[str]()
    steps = model_file(model)[1].model
    for name in methods:
        config = method_files.shipped_config(name, model)
        chain = ModelConfig.model_validate(steps).steps
        method = registry.load("method", name)(config, chain)
        (needing if method.needs_reward_grad else others).append(name)
    return needing, others


def answer(model: Piece, reward: Piece, use: Use, here: Room, present: frozenset[str]) -> Answer:
    """Whether a method of that use can run. present: labels of the pieces whose files are all here."""
    cls = registry.load("reward", reward.name)
    if use == "reward gradient" and reward.config and not is_differentiable(cls, reward.config):
        return Answer("no gradient", NO_GRADIENT)
    config = model.config
    assert isinstance(config, ModelConfig)
    micro = TrainConfig.model_validate(model_file(model.name)[1].train).micro_batch
    taken = memory(config, micro, reward.name, reward.config, use, here.gpu)
    size = "? GiB" if taken is None else str(taken)
    if taken is not None and taken.gib > here.gib:
        return Answer(f"no: {size}", f"{model.name}: {_smaller(model, reward, use, here, micro)}")
    lacking = [piece for piece in (model, reward) if piece.label not in present]
    if lacking:
        flags = f"--model {model.name} " if model in lacking else ""
        return Answer(f"fetch, {size}", f"python -m bench fetch {flags}--reward {REWARDS}")
    if module := lacking_for(reward.name):
        return Answer(f"install, {size}", f"{REWARDS}: install the scorers, see above ({module})")
    slow = "" if here.gpu or config.source == "embedded:sd" else ", slow"
    return Answer(f"yes, {size}{slow}")


def _smaller(model: Piece, reward: Piece, use: Use, here: Room, micro: int) -> str:
    """Settings that make it fit, cheapest first."""
    config = model.config
    assert isinstance(config, ModelConfig)
    saving = config.model_copy(update={"gradient_checkpointing": True})
    for tried, batch, typed in (
        (config, 1, "--set train.micro_batch=1"),
        (saving, micro, "--set model.gradient_checkpointing=true"),
        (saving, 1, "--set model.gradient_checkpointing=true --set train.micro_batch=1"),
    ):
        taken = memory(tried, batch, reward.name, reward.config, use, here.gpu)
        if taken is not None and taken.exact and taken.gib <= here.gib:
            return typed
    return "wants a larger GPU" if here.gpu else "wants more memory, or a GPU"


def show(
    console: Console, models: Sequence[Piece], rewards: Sequence[Piece], uses: dict[Use, str], here: Room
) -> None:
    """The table, then what to type about it; rewards with the same answers share a row."""
    table = Table(box=None, padding=(0, 1, 0, 1), title_justify="left", title_style="bold")
    table.title = f"can run here ({here.gib:.1f} GiB of {'GPU' if here.gpu else 'main'} memory free)"
    table.add_column("model", no_wrap=True, style="cyan")
    table.add_column("rewards", overflow="fold")
    for header in uses.values():
        table.add_column(header, no_wrap=True)
    present = frozenset(piece.label for piece in (*models, *rewards) if complete(piece))
    fixes: dict[str, list[str]] = {}  # what to type → the rewards that it is for
    for model in models:
        rows: dict[tuple[str, ...], list[str]] = {}
        for reward in rewards:
            answers = [answer(model, reward, use, here, present) for use in uses]
            rows.setdefault(tuple(a.text for a in answers), []).append(reward.name)
            for fix in dict.fromkeys(a.fix for a in answers if a.fix):
                fixes.setdefault(fix, []).append(reward.name)
        for texts, names in rows.items():
            table.add_row(model.name, ", ".join(names), *texts)
    console.print(table)
    absent = [reward.name for reward in rewards if reward.label not in present]
    for fix, names in fixes.items():
        wanted = [name for name in names if name in absent] or names
        text = fix.replace(REWARDS, ALL if set(wanted) == set(reward_list()) else ",".join(wanted))
        console.print(f"  {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
