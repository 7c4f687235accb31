"""RLR as its authors' published code computes it: first order at the last step and weak PPO terms, no ZO.

Source: the code published with arXiv:2502.00639 (2025), read, not run. The last step is FO at weight 0.05.
What stands for the half-order block are `n` single steps before the last, drawn independently and
uniformly, once for the whole batch; each is a PPO term with mean log-probability, clip 1e-4 and
batch-whitened advantages at weight 1e-3, and a step that is drawn twice counts twice. The ZO term of the
paper's Eq. 6 is dead code there. Noise on all steps but the last. Biased: nothing estimates the steps that
are not drawn, and the weights are not those of any tiling. `rlr` is the paper's estimator.

The presets `rlr-authors-aesthetic` (n = 2, eta 0.05) and `rlr-authors-hps` (n = 1, eta 1, PPO at weight 1)
are what they published; n = 5 and eta 1 at weight 1e-3, this class's defaults, are neither.

Differs from the authors' code in three defects that are not reproduced: they also draw the last step, which
has no noise, so the PPO term becomes NaN and is dropped; they de-normalise images twice before the reward;
their PickScore compares every image with the batch's first prompt. Advantages are not clamped; x is kept in
float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.advantages import advantages
from bench.engine.batch import Batch, Report
from bench.engine.likelihood_ratio import Ppo
from bench.engine.method import Method
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import uniform

if TYPE_CHECKING:
    from bench.engine.engine import Engine


class RlrAuthorsCodeConfig(Strict):
    """Settings of the authors' code."""

    n: int = Field(default=5, ge=1, description="single steps drawn per batch, repetitions counted")
    fo_weight: float = Field(default=0.05, gt=0, description="factor of the first-order last step")
    ho_weight: float = Field(default=1e-3, gt=0, description="factor of every one-step PPO term")
    clip: float = Field(default=1e-4, gt=0, description="trust region 1 ± clip of the importance ratio")
    eta: float = Field(default=1.0, gt=0, description="noise scale at every step but the last")


@final
class RlrAuthorsCode(Method):
    """HO(1) at a few drawn steps, SKIP at the others, FO at the last."""

    name: ClassVar[str] = "rlr-authors-code"
    Config: ClassVar[type[Strict]] = RlrAuthorsCodeConfig
    biased = True
    needs_reward_grad = True

    def __init__(self, config: RlrAuthorsCodeConfig, steps: int) -> None:
        """Raises BenchError if there is no step before the last to draw."""
        super().__init__(config, steps)
        if steps < 2:
            raise BenchError("rlr-authors-code needs a step before the last: raise model.steps")

    def updates(self, engine: Engine, batch: Batch) -> Iterator[Report]:
        """One rollout, one gradient."""
        c: RlrAuthorsCodeConfig = self.config
        if len(batch.prompts) < 2:
            raise BenchError(
                "rlr-authors-code whitens rewards over the batch, which needs at least 2 samples "
                "(train.prompts_per_step × train.samples_per_prompt)"
            )
        plan = self.plan(engine.seed, batch.step)
        trajectory = engine.rollout([plan] * len(batch.prompts), batch)
        yield engine.gradient(
            trajectory,
            advantages(trajectory.signed, batch.prompts, "mean", "batch"),
            weights={Kind.FO: c.fo_weight, Kind.HO: c.ho_weight, Kind.ZO: 1.0},
            ppo=Ppo(c.clip, mean=True),
        )

    def plan(self, seed: int, step: int) -> Plan:
        """The plan of all samples of a batch, keyed by (seed, step)."""
        last, rng = self.steps - 1, uniform("rlr-authors-code", seed, step)
        times = Counter(rng.randrange(last) for _ in range(self.config.n))
        segments = [
            Segment(Kind.HO, i, i + 1, times[i]) if times[i] else Segment(Kind.SKIP, i, i + 1)
            for i in range(last)
        ]
        segments.append(Segment(Kind.FO, last, self.steps))
        return Plan(tuple(segments), (*[self.config.eta] * last, 0.0))
