"""VADER: backpropagation through one step of a stochastic chain (Prabhudesai et al. 2024).

`last` backpropagates through the last step alone, `rand` through one random step, `specific` through a given
one; in the two latter the network's output is detached at the steps after it and the solver's linear x-path
carries the gradient (PASS). Biased: all other steps are dropped. The chain is sampled with eta = 1, as the
authors do.

On videos `frames: 1` decodes and rewards one random frame of each sample, as the authors do to save
memory, and `frames: k` so many. For a reward that is a mean over frames this estimates the same gradient as
all frames do, with more variance.

Source: arXiv:2407.08737 and its code: VideoCrafter at 25 steps, guidance 12, eta 1; LoRA rank 16, AdamW 2e-4,
batch 1 with 8 accumulation steps.

Differs from the authors' code: frames and steps are drawn from streams of the run's seed, not the clock's,
and frames anew for every sample; an image model has none to draw from.
"""

import random
from typing import Annotated, ClassVar, Literal, final

from pydantic import Field

from bench.chain import Kind, Plan, Segment
from bench.errors import BenchError
from bench.plan_method import Estimator, PlanMethod
from bench.schema import Strict


class VaderConfig(Strict):
    """Settings of VADER."""

    mode: Literal["last", "rand", "specific"] = Field(
        default="last", description="which step is backpropagated"
    )
    step: int | None = Field(default=None, ge=0, description="specific: the step, 0 being the noisiest")
    frames: Literal["all"] | Annotated[int, Field(ge=1)] = Field(
        default="all", description="videos: how many randomly drawn frames are decoded and rewarded"
    )
    eta: float = Field(default=1.0, ge=0, description="noise scale at every step")


@final
class Vader(PlanMethod):
    """SKIP, FO × 1, PASS to the end."""

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
        """One step is backpropagated."""
        steps = self.steps
        chosen = {"last": steps - 1, "rand": rng.randrange(steps), "specific": self.config.step}[
            self.config.mode
        ]
        edges = ((Kind.SKIP, 0, chosen), (Kind.FO, chosen, chosen + 1), (Kind.PASS, chosen + 1, steps))
        segments = tuple(Segment(kind, start, stop) for kind, start, stop in edges if stop > start)
        return Plan(segments, (self.config.eta,) * steps, frames=self.reward_frames)

    def estimator(self) -> Estimator:
        """One step for the whole batch, as the authors draw it."""
        return Estimator(one_plan=True)
