"""What cannot go together, told before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.data.prompts import PromptSet
from bench.engine.method import Method
from bench.engine.reward import is_differentiable, media_of
from bench.experiment.settings import Choice, EvalConfig, ModelChoice
from bench.models.config import SOLVERS

MEMORYLESS = {"ddim": 1.0, "flow_sde": 2**0.5}  # eta for which x_0 does not depend on x_T, by solver
# Of antithetic perturbations in half precision (docs/estimators.md); `half` is float16 on a GPU.
LEAST_SCALE_OF_PAIRS = {"half": 1e-2, "float16": 1e-2, "bfloat16": 1e-1}


def fitted(name: str, config: Strict, steps: int) -> Method:
    """The method for chains of that many steps. Raises BenchError if its settings do not fit them.

    What a preset's base says is said of the preset.
    """
    entry = registry.find("method", name)
    try:
        return entry.load()(config, steps)
    except BenchError as error:
        if entry.base is None:
            raise
        raise BenchError(f"preset '{name}' of {entry.base}: {error}") from error


def without_reward_grad() -> list[str]:
    """The package's methods, presets left out, that train on a reward without a gradient whatever their
    settings."""
    classes = {name: entry.load() for name, entry in registry.own("method").items() if entry.problem is None}
    return [
        name
        for name, cls in classes.items()
        if cls.trains and cls.estimates and not getattr(cls, "needs_reward_grad", True)
    ]


def check_differentiable(method: str, reward: Choice) -> None:
    """Raise BenchError, with ways out, for a reward without a gradient."""
    scorer = registry.load("reward", reward.name)
    if is_differentiable(scorer, scorer.Config.model_validate(reward.config)):
        return
    others = ", ".join(without_reward_grad())
    way_out = f"Choose a differentiable reward, or {others}, or rlr with --set rlr.fo=false."
    if "fo" in registry.load("method", method).Config.model_fields:
        way_out = f"{method} without its first-order term does not: --set {method}.fo=false"
    if "differentiable" in scorer.Config.model_fields:
        say_so = f"--set {reward.name.split(':')[0]}.differentiable=true"
        way_out = f"{way_out[0].lower()}{way_out[1:]}"
        way_out = f"If it computes with torch all the way, say so: {say_so}. Otherwise {way_out}"
    raise BenchError(
        f"method '{method}' needs the gradient of the reward, and reward '{reward.name}' has none. {way_out}"
    )


def check_held_out(prompts: PromptSet, evaluation: EvalConfig, wanted: bool) -> None:
    """There must be a prompt left to evaluate on, and as many as were asked for.

    wanted: whether the user said how many; a model's own file says how many at most.
    """
    here, skip = len(prompts.eval), evaluation.skip
    left = f"prompts '{prompts.name}' has {here} held-out prompts"
    if skip >= here:
        raise BenchError(f"eval.skip: {skip} leaves nothing to evaluate on: {left}")
    if wanted and evaluation.prompts is not None and evaluation.prompts > here - skip:
        rest = f", of which eval.skip={skip} leaves {here - skip}" if skip else ""
        raise BenchError(
            f"eval.prompts: {evaluation.prompts} are not there: {left}{rest}. null takes all of them"
        )


def check_frames(method: str, wanted: int | None, model: ModelChoice, reward: Choice) -> None:
    """Frames that are drawn must be there, and a reward of whole videos sees no motion in them."""
    frames, wrong = model.config.frames, None
    if wanted is None:
        return
    if wanted > (frames or 0):
        made = "pictures, which have no frames" if frames is None else f"videos of {frames} frames"
        wrong = f"model '{model.name}' makes {made}"
    elif _scores_videos(reward):
        wrong = f"reward '{reward.name}' scores whole videos"
    if wrong is not None:
        way_out = f"--set {method}.frames=all"
        raise BenchError(f"{method}.frames: the reward is to see {wanted}, and {wrong}: {way_out}")


def check_memoryless(method: str, config: Strict, model: ModelChoice) -> None:
    """A method whose noise has to be memoryless needs a solver and an eta that make it so."""
    if not registry.load("method", method).memoryless:
        return
    solver, eta = model.config.solver, getattr(config, "eta")  # noqa: B009
    if solver not in MEMORYLESS:
        raise BenchError(
            f"model.solver: method '{method}' needs memoryless noise, which {solver} has not here: "
            "--set model.solver=ddim, for flow matching --set model.solver=flow_sde"
        )
    if abs(eta - MEMORYLESS[solver]) > 1e-3:
        raise BenchError(
            f"{method}.eta is {eta:g}, and the noise of {solver} is memoryless at {MEMORYLESS[solver]:.5g}: "
            f"--set {method}.eta={MEMORYLESS[solver]:.5g}"
        )


def check_solver(model: ModelChoice) -> None:
    """Raise BenchError unless the model's family takes the solver; a plugin's says so when it loads."""
    family, solver = model.config.family, model.config.solver
    if family in SOLVERS and solver not in SOLVERS[family]:
        raise BenchError(
            f"model.solver: model '{model.name}' is of family {family}, whose solvers are "
            f"{', '.join(SOLVERS[family])}, and not {solver}: choose one of them"
        )


def check_media(model: ModelChoice, rewards: Iterable[Choice]) -> None:
    """A reward of videos needs a model that makes them."""
    for choice in rewards:
        if model.config.frames is None and _scores_videos(choice):
            raise BenchError(
                f"reward '{choice.name}' scores videos, and model '{model.name}' makes pictures: "
                "choose another reward, or a model of family video"
            )


def cautions(choices: Iterable[tuple[Choice, ModelChoice]]) -> list[str]:
    """What runs and will be worth less than it might, one line for each method. choices: method and model."""
    found: dict[str, None] = {}
    for method, model in choices:
        if model.config.solver == "euler" and method.config.get("eta"):
            found[
                f"{method.name} on {model.name}: {method.name}.eta={method.config['eta']:g} has no effect, "
                "as euler injects no noise: --set model.solver=flow_sde"
            ] = None
        config: dict[str, Any] = {"antithetic": False, "completion": "zo", **method.config}
        least = LEAST_SCALE_OF_PAIRS.get(model.config.dtype, 0.0)
        if config["antithetic"] and config["completion"] == "zo" and config["scale"] < least:
            found[
                f"{method.name} on {model.name}: a pair at scale {config['scale']:g} differs by less than "
                f"{model.config.dtype} rounds (docs/estimators.md): --set {method.name}.scale="
                f"{least:g} or more, or --set model.dtype=float32"
            ] = None
    return list(found)


def _scores_videos(reward: Choice) -> bool:
    cls = registry.load("reward", reward.name)
    return media_of(cls, cls.Config.model_validate(reward.config)) == "video"
