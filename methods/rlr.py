"""RLR, the recursive likelihood ratio ("half-order") optimizer: FO last step, one HO block, ZO elsewhere.

Source: the RLR paper (arXiv:2502.00639), Eq. 6, §4.1-4.2, Table 5 and Table 9, with three readings settled:

- Eq. 6's C = {1..T} \\ {j..j+h} with j from 1 counts the last step twice and is biased. Here FO, block and ZO
  tile the chain: the last step is in neither the block nor C. Block starts are i = 0 … T-1-h, all inclusive.
- h counts network steps in the block (§3.2, Eq. 7, Table 9): h = 0 is "RLR w/o HO", h = 1 one RL step.
- HO needs no 1/p(j): whatever block is drawn, the three terms together cover every step.

Noise is injected only at the block's last step, so the target is the mixture, over blocks, of those chains.

`completion` says what becomes of the steps outside block and last step. `zo` is the paper's. `none` drops
them ("w/o ZO", biased). `resampled` is ours: blocks of h tile the chain with noise at every block's end, one
block (or `drawn` of them) is drawn and weighted by 1/p, which is unbiased without any perturbation.

Ours too: first order on the last `fo_steps` steps instead of one; blocks in the first `until` of the chain
alone, where the noise of likelihood ratios is small; `balance`, term weights from earlier batches
(`bench.engine.balance`); `mirrored` pairs of samples with opposite noise; `control`, a control variate for
the half-order term (`bench.engine.likelihood_ratio`), the reward's gradient through the one-step prediction,
whose scale at every step is fitted to earlier batches.

Without a differentiable reward set `fo: false`: the last step is then handled like the others (ZO; or part of
the tiling with `resampled`; with `none` it is dropped too).

Differs from the authors' published code, which has no ZO term and no block: it backpropagates the last step
at weight 0.05 and adds one-step PPO terms on randomly drawn steps.
"""

import math
import random
from collections.abc import Sequence
from typing import ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.advantages import AdvantageConfig
from bench.engine.balance import Balance
from bench.engine.batch import Perturbation
from bench.engine.control_variate import Control
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod

# Share of resampled blocks' law: a softmax of norms forgets some blocks, and 1/p then never makes up for it.
UNIFORM_SHARE = 0.2


class TermWeights(Strict):
    """Factor of each term; 1 is the paper's form and the only unbiased one."""

    fo: float = Field(default=1.0, description="of the first-order term")
    ho: float = Field(default=1.0, description="of the half-order term")
    zo: float = Field(default=1.0, description="of the zeroth-order term")


class RlrConfig(AdvantageConfig):
    """Settings of RLR."""

    h: int = Field(default=2, ge=0, description="steps in the half-order block; 0: no block")
    completion: Literal["zo", "none", "resampled"] = Field(
        default="zo", description="the other steps: zo (paper), none (biased), resampled (ours)"
    )
    fo: bool = Field(default=True, description="first-order last step; false: no reward gradient is needed")
    fo_steps: int = Field(default=1, ge=1, description="first-order steps at the image end (1: the paper's)")
    drawn: int | None = Field(
        default=1, ge=1, description="resampled: blocks drawn per sample, without replacement; null: all"
    )
    start: Literal["uniform", "norms"] = Field(
        default="uniform",
        description="law of the block's start; norms: softmax of measured HO gradient norms (paper)",
    )
    start_range: tuple[int, int] | None = Field(
        default=None, description="first and last allowed start, 0 being the noisiest step; null: all"
    )
    until: float = Field(
        default=1.0, gt=0, le=1, description="blocks start in this share of the chain, at its noisy end"
    )
    temperature: float = Field(default=1.0, gt=0, description="of the softmax over norms (1: the paper's)")
    one_start: bool = Field(default=False, description="one block for the whole batch; false: one per sample")
    eta: float = Field(default=0.1, gt=0, description="noise scale where the half-order term needs noise")
    scale: float = Field(default=1e-3, gt=0, description="s, standard deviation of the ZO perturbation")
    shared: bool = Field(default=False, description="one z for all ZO steps of a sample; false: one per step")
    antithetic: bool = Field(default=False, description="pairs of samples with the same noise and opposite z")
    mirrored: bool = Field(default=False, description="pairs of samples with opposite noise")
    stratified: bool = Field(default=False, description="starts spread evenly over a batch")
    control: Literal["none", "network", "linear", "value"] = Field(
        default="none",
        description="control variate of HO, from the one-step prediction: its reward's gradient through the "
        "network or along its linear path, and its reward; or its reward alone",
    )
    control_weight: float = Field(
        default=1.0, ge=0, description="λ of the control variate's correction; 1 is unbiased"
    )
    weights: TermWeights = TermWeights()
    balance: Balance = Field(
        default="none",
        description="factors of `weights` from earlier batches: norms makes terms as long as the first-order "
        "one, signal shrinks each by its share of noise (a batch then has two micro-batches or more)",
    )


@final
class Rlr(PlanMethod):
    """ZO …, one HO(h) block, ZO …, FO."""

    name: ClassVar[str] = "rlr"
    look = ("vermillion", "o", "solid")
    Config: ClassVar[type[Strict]] = RlrConfig

    def __init__(self, config: RlrConfig, steps: int) -> None:
        """Raises BenchError if the block does not fit in the chain."""
        super().__init__(config, steps)
        self.before = steps - (config.fo_steps if config.fo else 1)  # steps that a block may cover
        if config.h > self.before:
            raise BenchError(
                f"rlr.h is {config.h}, but only {self.before} steps lie before the last (model.steps)"
            )
        if config.completion == "resampled" and config.h == 0:
            raise BenchError("rlr.completion=resampled needs blocks: set rlr.h to 1 or more")
        if config.h == 0 and config.completion == "none" and not config.fo:
            raise BenchError("rlr: h 0, completion none and fo false leave nothing to estimate")
        if config.balance != "none" and not config.fo:
            raise BenchError("rlr.balance compares terms with the first-order one, which fo=false leaves out")
        self.starts = self._starts()
        self.drawn = len(self.starts) if config.drawn is None else config.drawn
        if self.drawn > 1:
            self._check_drawn()
        weighted = config.weights != TermWeights() or config.balance != "none" or config.biased_advantages
        partly = config.completion == "resampled" and len(self.starts) < len(self._tiles())
        whole = config.fo and config.h == self.before  # block and last steps are the chain
        surrogate = config.control != "none" and config.control_weight != 1
        self.biased = (config.completion == "none" and not whole) or weighted or partly or surrogate
        self.needs_reward_grad = config.fo or config.control in ("network", "linear")

    def _check_drawn(self) -> None:
        c = self.config
        if c.stratified:
            raise BenchError("rlr.stratified spreads the start of one block: it needs drawn=1")
        if c.completion != "resampled" or c.start != "uniform" or self.drawn > len(self.starts):
            raise BenchError(
                f"rlr.drawn={self.drawn} needs completion=resampled, start=uniform and so many blocks, not "
                f"{len(self.starts)}"
            )

    def probabilities(self) -> list[float]:
        """p(j) of every allowed start; with `norms`, from earlier steps only."""
        norms = {i: norm for i, norm in self.state.items() if isinstance(i, int)}
        if self.config.start == "uniform" or not norms:
            return [1 / len(self.starts)] * len(self.starts)
        typical = sum(norms.values()) / len(norms)
        logits = [norms.get(j, typical) / self.config.temperature for j in self.starts]
        weights = [math.exp(v - max(logits)) for v in logits]
        share = UNIFORM_SHARE if self.config.completion == "resampled" else 0.0
        return [share / len(weights) + (1 - share) * w / sum(weights) for w in weights]

    def plan(self, rng: random.Random) -> Plan:
        """Draw the block's start and lay the terms around it."""
        if self.drawn > 1:
            chosen = rng.sample(self.starts, self.drawn)
            return self._tiled(chosen, len(self.starts) / self.drawn)
        p = self.probabilities()
        n = rng.choices(range(len(p)), weights=p)[0]
        if self.config.completion == "resampled":
            return self._tiled([self.starts[n]], 1 / p[n])
        return self._around(self.starts[n])

    def estimator(self) -> Estimator:
        """Perturbation, baseline and weights of the settings."""
        c = self.config
        return Estimator(
            perturbation=Perturbation(c.scale, c.shared, c.antithetic, c.mirrored),
            baseline=c.baseline,
            divide=c.divide,
            weights={Kind.FO: c.weights.fo, Kind.HO: c.weights.ho, Kind.ZO: c.weights.zo},
            balance=c.balance,
            one_plan=c.one_start,
            stratified=c.stratified,
            half_order_norms=c.start == "norms",
            control=None if c.control == "none" else self._control(),
        )

    def _control(self) -> Control:
        c = self.config
        return Control(self.control_scales(), c.control_weight, c.control)

    def _around(self, j: int) -> Plan:
        """The paper's plan for a block that starts at j."""
        steps, h, last = self.steps, self.config.h, self.before
        other = Kind.ZO if self.config.completion == "zo" else Kind.SKIP
        edges = [
            (other, 0, j),
            (Kind.HO, j, j + h),
            (other, j + h, last),
            (Kind.FO if self.config.fo else other, last, steps),
        ]
        segments = tuple(Segment(kind, start, stop) for kind, start, stop in edges if stop > start)
        noisy = {j + h - 1} if h > 0 else set()
        return Plan(segments, tuple(self.config.eta if i in noisy else 0.0 for i in range(steps)))

    def _tiled(self, drawn: Sequence[int], weight: float) -> Plan:
        """Blocks tile the chain, noise at every block's end; those drawn count 1/p, the others are
        dropped."""
        tiles = self._tiles()
        kinds = [Kind.HO if start in drawn else Kind.SKIP for start, _ in tiles]
        segments = [
            Segment(k, *tile, weight if k is Kind.HO else 1.0) for k, tile in zip(kinds, tiles, strict=True)
        ]
        if self.config.fo:
            segments.append(Segment(Kind.FO, self.before, self.steps))
        ends = {stop - 1 for start, stop in tiles if start in self.starts}
        return Plan(tuple(segments), tuple(self.config.eta if i in ends else 0.0 for i in range(self.steps)))

    def _tiles(self) -> list[tuple[int, int]]:
        """(start, stop) of the blocks that tile the steps before FO; the noisiest may be shorter."""
        last = self.before if self.config.fo else self.steps
        return [(max(stop - self.config.h, 0), stop) for stop in range(last, 0, -self.config.h)][::-1]

    def _starts(self) -> list[int]:
        if self.config.completion == "resampled":
            known = [start for start, _ in self._tiles()]
        else:
            known = list(range(self.before - self.config.h + 1))
        low, high = self.config.start_range or (known[0], known[-1])
        allowed = [j for j in known if low <= j <= high and j < self.config.until * self.steps]
        if not allowed:
            raise BenchError(
                f"rlr.start_range {[low, high]} holds no block start; there are {known[0]} to {known[-1]}"
                f" (null: all of them), and rlr.until={self.config.until:g} has to let one of them through"
            )
        return allowed
