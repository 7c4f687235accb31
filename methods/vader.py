"""VADER: backpropagation through the end of a stochastic chain (Prabhudesai et al. 2024).

`last` backpropagates through the last step alone, `rand` from a random step to the end, `specific` from a
given one. Biased: the steps before are dropped. `single` is not the authors': one random step, while the
network's output is detached at the steps after it and the solver's linear x-path carries the gradient (PASS).
The chain is sampled with eta = 1, as the authors do.

On videos `frames: 1` decodes and rewards one random frame of each sample, as the authors do to save
memory, and `frames: k` so many. For a reward that is a mean over frames this estimates the same gradient as
all frames do, with more variance.

Source: arXiv:2407.08737 and its code: VideoCrafter at 25 steps, guidance 12, eta 1; LoRA rank 16, AdamW 2e-4,
batch 1 with 8 accumulation steps.

Differs from the authors' code: frames and steps are drawn from streams of the run's seed, not the clock's,
and frames anew for every sample; an image model has none to draw from. The score is maximised as it is
(docs/rewards.md has their losses). Their LoRA is on queries, keys and values, has alpha 8 at rank 16 (so
scale 1/2) and dropout 0.01; here it is what the model's settings say, on output layers too, without dropout.
Guidance belongs to the model as well, so that all methods share it: 7.5 for videocrafter2 as shipped, theirs
with `--set model.guidance=12`.
"""

import random
from typing import Annotated, ClassVar, Literal, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod


class VaderConfig(Strict):
    """Settings of VADER."""

    mode: Literal["last", "rand", "specific", "single"] = Field(
        default="last",
        description="last: the last step is backpropagated; rand, specific: all from a random or the given "
        "one on; single: one random step",
    )
    step: int | None = Field(default=None, ge=0, description="specific: the first step, 0 being the noisiest")
    frames: Literal["all"] | Annotated[int, Field(ge=1)] = Field(
        default="all", description="videos: how many randomly drawn frames are decoded and rewarded"
    )
    eta: float = Field(default=1.0, ge=0, description="noise scale at every step")


@final
class Vader(PlanMethod):
    """SKIP, FO to the end; mode `single`: SKIP, FO × 1, PASS to the end."""

    name: ClassVar[str] = "vader"
    look = ("sky", "D", "mixed")
    Config: ClassVar[type[Strict]] = VaderConfig
    biased = True
    needs_reward_grad = True

    def __init__(self, config: VaderConfig, steps: int) -> None:
        """Raises BenchError if mode `specific` comes without a step of the chain."""
        super().__init__(config, steps)
        self.reward_frames = None if config.frames == "all" else config.frames
        if (config.mode == "specific") != (config.step is not None):
            raise BenchError("vader.step goes with vader.mode=specific, and the mode needs it")
        if config.step is not None and config.step >= steps:
            raise BenchError(f"vader.step is {config.step}; the chain's steps are 0 to {steps - 1}")

    def plan(self, rng: random.Random) -> Plan:
        """Where backpropagation begins, and what comes behind."""
        steps, mode = self.steps, self.config.mode
        drawn = rng.randrange(steps) if mode in ("rand", "single") else steps - 1
        first = drawn if self.config.step is None else self.config.step
        last = first + 1 if mode == "single" else steps
        edges = ((Kind.SKIP, 0, first), (Kind.FO, first, last), (Kind.PASS, last, steps))
        segments = tuple(Segment(kind, start, stop) for kind, start, stop in edges if stop > start)
        return Plan(segments, (self.config.eta,) * steps, frames=self.reward_frames)

    def estimator(self) -> Estimator:
        """One draw for the whole batch, as the authors draw it."""
        return Estimator(one_plan=True)
