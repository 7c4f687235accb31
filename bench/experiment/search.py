"""What tuning may change of a method, and from which laws: `search` in configs/methods/<name>.yaml.

    search:
      train.lr: {log: [3.0e-4, 3.0e-2]}
      k: {choice: [1, 3, 5]}

A space belongs to the method and is the same for all workloads, models and rewards. It may have the learning
rate, whose law all methods share, settings of the training that are a method's to choose, and the method's
own (`against_protocol`). A preset that declares none has its base's. A method without a space has nothing to
tune.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator
from scipy.stats import qmc

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import Layers, Tree, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.engine.random_streams import derived_seed


class Law(Strict):
    """How a setting is drawn; exactly one of the four."""

    log: tuple[float, float] | None = Field(default=None, description="log-uniformly between two numbers")
    uniform: tuple[float, float] | None = Field(default=None, description="uniformly between two numbers")
    integer: tuple[int, int] | None = Field(default=None, description="a whole number, both ends included")
    choice: tuple[Any, ...] | None = Field(default=None, min_length=1, description="one of these")

    @model_validator(mode="after")
    def _one(self) -> Law:
        given = [name for name in ("log", "uniform", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("say exactly one of log, uniform, integer and choice")
        ends = self.log or self.uniform or self.integer
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} goes from the smaller number to the larger")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("log takes positive numbers")
        return self

    def at(self, u: float) -> Any:
        """The setting at u in [0, 1); numbers to three digits, so that they can be read and typed."""
        if self.choice is not None:
            return self.choice[int(u * len(self.choice))]
        if self.integer is not None:
            low, high = self.integer
            return low + int(u * (high - low + 1))
        if self.log is not None:
            low, high = self.log
            return float(f"{low * (high / low) ** u:.3g}")
        low, high = self.uniform or (0.0, 1.0)
        return float(f"{low + (high - low) * u:.3g}")

    def holds(self, value: Any) -> bool:
        """Whether the law can give this setting: one of its choices, or a number between its ends."""
        if self.choice is not None:
            return any(
                value == one and isinstance(value, bool) is isinstance(one, bool) for one in self.choice
            )
        ends = self.integer or self.log or self.uniform or (0.0, 1.0)
        number = isinstance(value, int) if self.integer is not None else isinstance(value, int | float)
        # Numbers are drawn to three digits, which may lie just outside the ends.
        low, high = (float(f"{end:.3g}") if self.integer is None else end for end in ends)
        return number and not isinstance(value, bool) and min(low, ends[0]) <= value <= max(high, ends[1])


class Space(Strict):
    """A method's whole space: dotted setting (`train.lr`, or one of the method's own) → law."""

    search: dict[str, Law]


RATE = "train.lr"
LOWEST, HIGHEST = 3.0e-4, 3.0e-2
LAW_OF_RATE = Law(log=(LOWEST, HIGHEST))  # of all methods
MOST_BESIDES = 3  # settings besides the learning rate
OF_TRAINING = (  # other settings of `train` that are a method's to choose
    "prompts_per_step",
    "samples_per_prompt",
    "batch_size",
    "optimizer",
    "betas",
    "weight_decay",
    "clip_norm",
)
FIRST_SEED = 1000  # of tuning; comparisons start at 0
FIXED = ("model", "sampler", "reward", "prompts", "eval", "seed", "seeds")  # for all methods, by the workload


def against_protocol(laws: Mapping[str, Law]) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong with it) of a space that gives a method more than others have."""
    for key, law in laws.items():
        section, _, name = key.partition(".")
        if key == RATE and law != LAW_OF_RATE:
            yield key, f"the learning rate of every method is drawn from {{log: [{LOWEST}, {HIGHEST}]}}"
        elif key != RATE and section == "train" and name not in OF_TRAINING:
            yield key, f"is not a method's to tune; of train only lr, {', '.join(OF_TRAINING)} are"
        elif section in FIXED:
            yield key, "is not a method's to tune: it is the same for all methods"
    besides = [key for key in laws if key != RATE]
    for key in besides[MOST_BESIDES:]:
        yield key, f"is one too many: at most {MOST_BESIDES} settings are tuned besides {RATE}"


def space(method: str) -> dict[str, Law]:
    """The space of a method or preset; empty if it has none.

    Raises BenchError for a faulty file, and for a space that is against the protocol.
    """
    entry, files = registry.find("method", method), shipped("methods")
    for name in (method, entry.base):
        if name is None or name not in files:
            continue
        tree, file = read_yaml(files[name]), readable(files[name])
        if "search" in tree:
            found = Layers().add(file, "", {"search": tree["search"]}).build(Space).search
            if wrong := [f"{file}: search.{key}: {what}" for key, what in against_protocol(found)]:
                raise BenchError("\n".join(wrong))
            return found
    return {}


def draws(method: str, trials: int, study: int) -> list[Tree]:
    """Settings of so many trials, from a scrambled Halton sequence that the method and the study key.

    Each is what `--set METHOD.…` would say, as a tree. All are empty for a method without a space.
    """
    laws = space(method)
    if not laws:
        return [{} for _ in range(trials)]
    seed = derived_seed("tune", method, study) % 2**32
    points = qmc.Halton(len(laws), scramble=True, rng=seed).random(trials)
    return [
        _tree({key: law.at(float(u)) for (key, law), u in zip(laws.items(), row, strict=True)})
        for row in points
    ]


def _tree(settings: Tree) -> Tree:
    found = Layers()
    for key, value in settings.items():
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        found.add("search", "", tree)
    return found.tree
