"""What every claim needs: estimators on a closed-form chain, numbers with standard errors, a verdict."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, final

import torch
from scipy.stats import f as f_law
from scipy.stats import norm
from tabulate import tabulate
from torch import Tensor

from bench.base.strict import Strict
from bench.engine.batch import Batch
from bench.engine.engine import Engine
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan
from bench.engine.plan_method import Estimator, PlanMethod
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_gradient

NO_CHOICE = random.Random(0)  # for plans that leave nothing to draw
Update = Callable[[Engine, Batch], None]  # leaves a gradient in `.grad`


@dataclass(frozen=True)
class Number:
    """A value and its standard error (0: computed, not sampled)."""

    value: float
    error: float = 0.0

    def __str__(self) -> str:
        if not self.error > 1e-12 * abs(self.value):  # exact, up to rounding
            return f"{self.value:.4g}"
        places = 1 - math.floor(math.log10(self.error))
        if places < -4:
            return f"{self.value:.3g} ± {self.error:.1g}"
        return f"{self.value:.{max(places, 0)}f} ± {self.error:.{max(places, 0)}f}"

    def __mul__(self, factor: float) -> Number:
        """By an exact factor."""
        return Number(self.value * factor, self.error * abs(factor))

    def __sub__(self, other: Number) -> Number:
        """Of independent numbers."""
        return Number(self.value - other.value, math.hypot(self.error, other.error))

    def sigmas_from(self, other: float) -> float:
        """Distance to a value in standard errors."""
        return abs(self.value - other) / self.error


@dataclass(frozen=True)
class Outcome:
    """What a claim's script prints. tables: rows of one dataclass each. checks: statement → found true."""

    tables: Sequence[Sequence[Any]]
    checks: Mapping[str, bool]

    def __str__(self) -> str:
        tables = "\n\n".join(table(rows) for rows in self.tables)
        found = "; ".join(f"{what}: {'yes' if true else 'NO'}" for what, true in self.checks.items())
        return f"{tables}\n\nVerdict: {found}."


def table(rows: Sequence[Any]) -> str:
    """Rows of one dataclass as text, a column per field."""
    header = [f.name.replace("_", " ") for f in fields(rows[0])]
    cells = [[_cell(getattr(row, f.name)) for f in fields(row)] for row in rows]
    return tabulate(cells, header, tablefmt="simple", disable_numparse=True)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "  ".join(_cell(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


@final
class Inline(PlanMethod):
    """An estimator written where it is used: a function that draws a plan."""

    Config: ClassVar[type[Strict]] = Strict
    biased = False
    needs_reward_grad = True

    def __init__(
        self, draw: Callable[[random.Random], Plan], steps: int, settings: Estimator | None = None
    ) -> None:
        super().__init__(Strict(), steps)
        self._draw, self._settings = draw, settings or Estimator()

    def plan(self, rng: random.Random) -> Plan:
        """What `draw` draws."""
        return self._draw(rng)

    def estimator(self) -> Estimator:
        """As given."""
        return self._settings


def first_update(method: Method) -> Update:
    """The method's first gradient of a batch."""

    def update(engine: Engine, batch: Batch) -> None:
        next(iter(method.updates(engine, batch)))

    return update


def ascent(chain: LinearGaussianChain) -> Tensor:
    """The gradient of E[R] that the engine left (negated) in `.grad`, flat [d], float64."""
    return -torch.cat([p.grad.double().flatten() for p in chain.parameters() if p.grad is not None])


def batch_gradients(
    chain: LinearGaussianChain, reward: Any, update: Update, *, batches: int, size: int, seed: int
) -> Tensor:
    """[batches, d]: one estimate per batch of `size` samples."""
    engine = Engine(chain, reward, seed=seed, micro_batch=size)
    found = []
    for step in range(batches):
        update(engine, Batch(("",) * size, step))
        found.append(ascent(chain))
    return torch.stack(found)


def target(chain: LinearGaussianChain, reward: QuadraticReward, plan: Plan, scale: float) -> Tensor:
    """The exact gradient of what a plan estimates: its noise, its ZO steps perturbed by s = scale. [d]."""
    return exact_gradient(chain, reward, plan.eta, scales(plan, scale))


def scales(plan: Plan, scale: float) -> list[float]:
    """s at the plan's ZO steps, 0 elsewhere."""
    return [scale if plan.segment_at(i).kind is Kind.ZO else 0.0 for i in range(plan.steps)]


@dataclass(frozen=True)
class Bias:
    """How far the mean of estimates is from a target. relative: |difference| / |target|, with its standard
    error.

    z: Hotelling's T² test of all coordinates together, as the number of standard errors that is as unlikely
    in one dimension.
    """

    relative: Number
    z: float

    @property
    def found(self) -> bool:
        """More than 3 standard errors from zero."""
        return self.z > 3


def bias(estimates: Tensor, exact: Tensor) -> Bias:
    """estimates [n, d], one per batch; exact [d]."""
    n, d = estimates.shape
    difference = estimates.mean(0) - exact
    covariance = torch.cov(estimates.T) / n
    t2 = float(difference @ torch.linalg.solve(covariance, difference))
    p = float(f_law.sf(t2 * (n - d) / (d * (n - 1)), d, n - d))
    size = float(exact.norm())
    relative = Number(float(difference.norm()) / size, float(covariance.trace().sqrt()) / size)
    return Bias(relative, float(norm.isf(max(p, 1e-300) / 2)))


def mean(values: Tensor) -> Number:
    """Of independent values [n]."""
    return Number(float(values.mean()), float(values.std() / len(values) ** 0.5))


def variance(estimates: Tensor) -> Number:
    """Trace of the covariance of estimates [n, d]."""
    n = len(estimates)
    return mean((estimates - estimates.mean(0)).square().sum(1) * n / (n - 1))


def components(estimates: Tensor) -> tuple[Number, ...]:
    """Mean of every coordinate of estimates [n, d]."""
    return tuple(mean(column) for column in estimates.T)


def numbers(values: Tensor) -> tuple[Number, ...]:
    """Exact coordinates [d]."""
    return tuple(Number(float(v)) for v in values)


def batches_of(samples: int, size: int) -> int:
    """Number of batches of `size` that make `samples`, at least 8."""
    return max(samples // size, 8)
