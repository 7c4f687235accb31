"""Workloads: what methods are compared on. configs/workloads/<name>.yaml, or a file of one's own.

A workload is a model, a reward, prompts, a budget and a target. Budget and target are fixed in the file, the
target by the rule of docs/protocol.md; tuning sees held-out prompts that no comparison reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.base import registry
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Tree, load_config, shipped
from bench.base.reward_names import registered
from bench.base.strict import Strict
from bench.experiment.checks import fitted
from bench.experiment.combinations import Combination, combinations
from bench.experiment.files import Request
from bench.experiment.method_files import shipped_config
from bench.experiment.model_files import model_settings
from bench.experiment.overrides import Override
from bench.experiment.settings import Budget
from bench.run.evaluations import DIVERSITY


class Slice(Strict):
    """Some of the held-out prompts."""

    skip: int = Field(ge=0, description="so many are passed over first")
    prompts: int = Field(ge=3, description="so many are drawn")


class Workload(Strict):
    """One workload."""

    model: str = Field(description="a shipped model, or path:directory")
    reward: str = Field(description="what is trained on")
    prompts: str = Field(description="prompt set or file")
    budget: Budget = Field(description="of one training, as `train.budget`")
    target: float | None = Field(
        default=None, description="held-out mean reward, raw, that counts as reached; null: not fixed yet"
    )
    evaluations: int = Field(default=4, ge=1, description="so many in a training, the last at its end")
    reported: Slice = Field(description="held-out prompts of the comparison")
    tuning: Slice = Field(description="held-out prompts of the tuning; none of the reported ones")
    images_per_prompt: int = Field(default=2, ge=1, description="pictures of each prompt")
    untouched: tuple[str, ...] = Field(default=(), description="rewards scored and not trained on")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="as --set: train, model, sampler, reward"
    )

    def request(self, methods: Sequence[str], seeds: Sequence[int] = (0,)) -> Request:
        """What `run` would be asked for."""
        return Request(
            methods=tuple(methods),
            model=(self.model,),
            reward=(self.reward,),
            prompts=(self.prompts,),
            seeds=tuple(seeds),
        )

    def combination(
        self, origin: str, tuning: bool, methods: Sequence[str], seed: int, settings: Override
    ) -> Combination:
        """Methods with one seed, and the base model; settings lie over the workload's own."""
        asked, above = self.request(methods, (seed,)), [*self.overrides(origin, tuning), settings]
        (found,) = combinations(asked, origin, above, None, frozenset())
        return found

    def overrides(self, origin: str, tuning: bool) -> list[Override]:
        """What it says over the settings of its model and of methods, lowest first."""
        part = self.tuning if tuning else self.reported
        train: Tree = {"budget": self.budget, "evaluations": 1 if tuning else self.evaluations}
        evaluation: Tree = {
            "skip": part.skip,
            "prompts": part.prompts,
            "images_per_prompt": self.images_per_prompt,
            "rewards": [self.reward] if tuning else [self.reward, *self.untouched],
        }
        return [Override(origin, self.settings), Override(origin, {"train": train, "eval": evaluation})]

    @property
    def differentiable(self) -> bool:
        """Whether its reward has a gradient."""
        return registry.load("reward", registered(self.reward)).differentiable

    @property
    def scored(self) -> tuple[str, ...]:
        """What a comparison has scores of: the trained reward, the untouched ones, and diversity if any."""
        diversity = (DIVERSITY,) if self.images_per_prompt > 1 else ()
        return (self.reward, *self.untouched, *diversity)

    def takes(self, method: str) -> bool:
        """Whether a method can take part: not one that needs the gradient of a reward that has none.

        Raises BenchError for a method that does not fit the workload's chain.
        """
        if self.differentiable:
            return True
        own = {key: self.settings[key] for key in ("model", "sampler") if key in self.settings}
        steps = model_settings(self.model, [Override("settings", own)] if own else ()).steps
        return not fitted(method, shipped_config(method, self.model), steps).needs_reward_grad


def direction(reward: str) -> int:
    """1 for a reward of which more is better, -1 for one of which less is."""
    return 1 if registry.load("reward", registered(reward)).higher_is_better else -1


def all_workloads() -> dict[str, Workload]:
    """Those that ship, by name. Raises BenchError for a faulty file."""
    return {name: workload(name)[1] for name in shipped("workloads")}


def workload(name: str) -> tuple[str, Workload]:
    """(file for messages, workload) of a shipped name or a YAML file. Raises BenchError."""
    known = shipped("workloads")
    if name not in known and not name.endswith((".yaml", ".yml")):
        raise BenchError(
            f"unknown workload '{name}'.{did_you_mean(name, list(known))} Known: {', '.join(known)}"
        )
    path = known[name] if name in known else Path(name)
    found = load_config(path, Workload)
    own, tuning = (range(s.skip, s.skip + s.prompts) for s in (found.reported, found.tuning))
    if set(own) & set(tuning):
        raise BenchError(
            f"{name}: tuning uses held-out prompts that are reported: set tuning.skip to {own.stop} or more"
        )
    return str(path), found
