"""What would end a cell minutes after its start, found in seconds: models and rewards are tried out.

A model is built in its true shapes without its weights; a reward of the user's own scores two pictures of
noise in the model's size. This happens in a process of its own, which a reward may end, and whose memory is
free afterwards. It is left out where nothing can be wrong: shipped rewards on a shipped model with its own
settings, whose files are the package's or not here yet.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from bench.base import devices, registry, reward_names
from bench.base.console import progress
from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.data.packages import APART
from bench.engine import kl
from bench.engine.method import Method
from bench.engine.plan import no_noise
from bench.experiment.model_files import model_file
from bench.experiment.resolve import Cell
from bench.experiment.settings import CellConfig, Choice, Training
from bench.models import sizes
from bench.models.config import ModelConfig
from bench.run import warm
from bench.run.computed import DRAWN, drawn_plans, load_method

if TYPE_CHECKING:
    import torch

# Settings that are checked when they are read, whatever the model.
CHECKED = frozenset({"guidance", "solver", "decode_chunk", "gradient_checkpointing", "offload", "compile"})


@dataclass(frozen=True)
class Trial:
    """One model to build, and the rewards to call on pictures of its size."""

    model: ModelConfig
    rewards: tuple[Choice, ...]
    prompts: str


def check(cells: Sequence[Cell], call_rewards: bool = True) -> None:
    """Raise BenchError for what the cells would stop at, one line for each mistake.

    Of cells that wait for files the model is looked at where its architecture is known by name. call_rewards:
    False on a machine other than the one that runs the cells.
    """
    check_plans(cell.config for cell in cells)
    trials = _trials(cells, call_rewards)
    if not trials:
        return
    progress("trying out the model" + " and your rewards" * any(trial.rewards for trial in trials))
    names = sorted({reward.name for trial in trials for reward in trial.rewards})
    context = warm.context() if warm.worth_it(len(cells)) else get_context("spawn")
    with warm.without_script(), ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            found = process.submit(_in_a_new_process, trials, str(APART)).result()
        except BrokenProcessPool as error:
            blamed = f"calling {', '.join(names)}" if names else "building the model"
            raise BenchError(
                f"{blamed} ended the process that tried it out, without an exception: os._exit, or a crash"
            ) from error
    if found:
        raise BenchError("\n".join(found))


def check_processes(configs: Iterable[CellConfig], processes: int) -> None:
    """Raise BenchError unless the batch of every cell that trains divides among its processes."""
    for config in configs:
        if config.training is not None and config.training.train.batch % processes:
            train = config.training.train
            raise BenchError(
                f"method '{config.label}': its batch of {train.batch} samples does not divide among "
                f"{processes} processes: change train.prompts_per_step ({train.prompts_per_step}) or "
                f"train.samples_per_prompt ({train.samples_per_prompt}), or the number of processes"
            )


def check_plans(configs: Iterable[CellConfig]) -> None:
    """Raise BenchError if a method's batch does not suit it, or it finds no noise where its plans or a KL
    term need it, as far as that is known without the model."""
    for config in configs:
        if config.training is None:
            continue
        method, who = load_method(config, config.training), f"'{config.label}': "
        try:
            plans = drawn_plans(method, config.training, [*range(DRAWN), *_turns(method, config.training)])
        except BenchError as error:
            raise BenchError(f"{who}{error}") from error
        without_noise, steps = _without_noise(config.model.config), config.model.config.steps
        for plan in plans:
            for i in sorted(plan.needs_noise().intersection(without_noise)):
                raise no_noise(i, steps, who)
        if plans and config.training.train.kl and method.estimates:
            ways = _ways_to_noise(method, config, any(any(plan.eta) for plan in plans))
            kl.check_plans(plans, without_noise, who, ways)


def _turns(method: Method, training: Training) -> list[int]:
    """Batches at which a schedule gives the method other plans, as far as this training may get."""
    train, batches = training.train, math.inf
    if train.steps is not None:
        batches = train.steps / method.updates_per_batch
    elif isinstance(train.budget, int):
        batches = train.budget / (train.batch * method.steps)
    return [turn for turn in method.turns if DRAWN <= turn < batches]


def _without_noise(model: ModelConfig) -> range:
    """Steps that inject none whatever eta, as far as the solver's name says."""
    first = {"euler": 0, "flow_cps": model.steps - 1}
    return range(first.get(model.solver, model.steps), model.steps)


def _ways_to_noise(method: Method, config: CellConfig, asked: bool) -> str:
    """What to set where a KL term finds no noise. asked: whether the method's plans have any."""
    name, settings, solver = config.label, type(method.config).model_fields, config.model.config.solver
    leave = f"--set {name}.train.kl=0"
    if "eta" not in settings:
        own = f", and {name}.kl=… for the weight of its own term" if "kl" in settings else ""
        return f"{name} runs without, so train.kl does not apply: {leave}{own}"
    ways = [] if asked else [f"--set {name}.eta=1"]
    if asked or solver == "euler":
        ways.append(f"--set model.solver=flow_sde instead of {solver}")
    return f"{' '.join(ways)}, or {leave}"


def _trials(cells: Iterable[Cell], call_rewards: bool) -> list[Trial]:
    """Every model with something to try out, once for each prompt set that its own rewards get."""
    found: dict[str, Trial] = {}
    for cell in cells:
        config = cell.config
        rewards = tuple(_own(config.eval_rewards)) if call_rewards and not cell.absent else ()
        if not rewards and _runs_as_shipped(cell):
            continue
        plugin = registry.find("model", config.model.config.family).plugin is not None
        if plugin or (cell.absent and sizes.architecture_name(config.model.config) is None):
            continue  # of unknown shapes
        key = (config.model.config, rewards, config.prompts if rewards else "")
        found[repr(key)] = Trial(config.model.config, rewards, config.prompts)
    return list(found.values())


def _own(choices: Iterable[Choice]) -> Iterable[Choice]:
    """The rewards that are the user's code: functions, plugins, and those of a sum's terms that are."""
    for choice in choices:
        if reward_names.terms(choice.name):
            yield from _own(Choice.model_validate(term) for term in _terms(choice))
        elif reward_names.function(choice.name) is not None or registry.find("reward", choice.name).plugin:
            yield choice


def _terms(choice: Choice) -> Iterable[dict[str, Any]]:
    return ({key: term[key] for key in ("name", "config")} for term in choice.config["terms"])


def _runs_as_shipped(cell: Cell) -> bool:
    """Whether the model's settings are those of its file, which is known to run, and there are no files of it
    to look at: it is an embedded one, or one that ships and is not here yet."""
    model, source = cell.config.model, cell.config.model.config.source or ""
    awaited = model.name in shipped("models") and any(absent.kind == "model" for absent in cell.absent)
    if model.config.path is not None or not (source.startswith("embedded:") or awaited):
        return False
    own = ModelConfig.model_validate(model_file(model.name)[1].model)
    return own.model_dump(exclude=set(CHECKED)) == model.config.model_dump(exclude=set(CHECKED))


def _in_a_new_process(trials: Sequence[Trial], apart: str) -> list[str]:
    if apart in sys.path:  # inherited from a process that had imported transformers before
        sys.path.remove(apart)
    return try_out(trials)


def try_out(trials: Sequence[Trial]) -> list[str]:
    """What is wrong, in this process; imports torch. A mistake is told once."""
    found: dict[str, None] = {}
    for trial in trials:
        for one in (_model, _rewards):
            try:
                one(trial)
            except BenchError as error:
                found[str(error)] = None
    return list(found)


def _model(trial: Trial) -> None:
    from bench.models.shapes import picture_shape

    model = trial.model
    for key, value in (("dtype", model.dtype), ("vae_dtype", model.vae_dtype)):
        if value == "float16" and devices.kind() == "cpu":
            raise BenchError(
                f"model.{key}: float16 overflows and is slow on a CPU, and there is no GPU here: --set "
                f"model.{key}=bfloat16"
            )
    picture_shape(model)


def _rewards(trial: Trial) -> None:
    """Call each reward on two pictures of noise: one alone would hide that scores are not one each."""
    import torch

    from bench.data import prompts
    from bench.models.shapes import picture_shape

    try:
        shape = picture_shape(trial.model)
    except BenchError:
        return  # told already
    if not trial.rewards:
        return
    device = torch.device(devices.kind())
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    texts = prompts.load(trial.prompts).train
    for choice in trial.rewards:
        try:
            _call(choice, noise, [texts[0], texts[-1]])
        except BenchError:
            raise
        except (Exception, SystemExit) as error:  # the user's code: any failure is theirs to see
            raise BenchError(f"reward '{choice.name}' failed: {type(error).__name__}: {error}") from error


def _call(choice: Choice, noise: torch.Tensor, texts: Sequence[str]) -> None:
    import torch

    from bench.engine.reward import is_differentiable
    from bench.experiment.choices import load_reward
    from bench.run.evaluate import checked_scores

    cls = registry.load("reward", choice.name)
    reward = load_reward(choice, noise.device)
    slope = is_differentiable(cls, cls.Config.model_validate(choice.config))
    media = noise.clone().requires_grad_(slope)
    found = checked_scores(choice.name, reward, media, texts)
    if slope:
        (gradient,) = torch.autograd.grad(found.sum(), media)
        if not bool(gradient.isfinite().all()):
            raise BenchError(f"reward '{choice.name}': its gradient is not finite on a picture of noise")
