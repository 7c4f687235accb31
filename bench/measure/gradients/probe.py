"""Draws gradients of one estimator at fixed parameters, with the exact gradient of the same trajectories.

from bench.measure.gradients.probe import profile
found = profile(MyMethod(config, chain.steps), chain, reward, prompts=("a", "b"), seconds=60)
print(found.own.relative, found.own.verdict, found.noise.relative)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from bench.base.compiling import clock
from bench.base.errors import BenchError
from bench.engine.batch import Batch, Trajectory
from bench.engine.chain import Chain
from bench.engine.engine import Engine
from bench.engine.finite import not_finite
from bench.engine.method import Method
from bench.engine.plan import REWARDED, Kind
from bench.engine.random_streams import derived_seed, uniform
from bench.engine.reward import Reward
from bench.engine.terms import flattened
from bench.measure.gradients.moments import GROUPS, TERMS, Draw, Moments, norm2
from bench.measure.gradients.verdict import MIN_GROUPS, ROUNDING, Bias, Noise, bias, noise
from bench.measure.peak_memory import peak_of

MARGIN = 0.25  # an unbiased verdict needs the relative bias's interval below this
LEVEL = 0.95
PAIRED = frozenset((*REWARDED, Kind.SKIP))  # noise-free given the trajectory: pairing cancels most
CHECK = 16  # draws between two comparisons of full backpropagation with the exact gradient
SHARE = 0.1  # of the estimate's own variance that the target's may add


class _Recorder:
    """The engine's watch: the last trajectory, and its gradient's parts on the CPU."""

    def __init__(self) -> None:
        self.trajectory: Trajectory | None = None
        self.parts: dict[tuple[Kind, int], Tensor] = {}
        self.factors: dict[Kind, float] = {}
        self.plain = True

    def weighted(self, weights: Mapping[Kind, float], plain: bool) -> None:
        self.factors, self.plain = dict(weights), plain

    def rolled_out(self, trajectory: Trajectory) -> None:
        self.trajectory, self.parts = trajectory, {}

    def contributed(self, kind: Kind, i: int, gradient: Tensor) -> None:
        part = gradient.float().cpu()
        self.parts[kind, i] = self.parts[kind, i] + part if (kind, i) in self.parts else part


@dataclass(frozen=True)
class Sampling:
    """What gradients are drawn of: which prompts, how many samples in a batch, which random streams."""

    prompts: tuple[str, ...]
    prompts_per_step: int = 4
    samples_per_prompt: int = 2
    micro_batch: int = 4
    seed: int = 0

    def batch(self, draw: int) -> tuple[str, ...]:
        """The prompts of a draw, independent of every other draw's; different ones while there are enough."""
        rng = uniform("profile", self.seed, draw)
        few = self.prompts_per_step > len(self.prompts)
        chosen = (rng.choices if few else rng.sample)(self.prompts, k=self.prompts_per_step)
        return tuple(p for p in chosen for _ in range(self.samples_per_prompt))


class Probe:
    """One method on one chain at fixed parameters. `moments` holds everything measured so far."""

    def __init__(
        self,
        method: Method,
        chain: Chain,
        reward: Reward,
        sampling: Sampling,
        shared: bool = False,
        kl: float = 0.0,
    ) -> None:
        """shared: another probe with the same seed measures the deployed sampler's exact gradient, so a
        method that runs the same chain need not do it again. kl: weight of the KL term in the objective, as
        for `Engine`."""
        self.method, self.sampling, self.shared = method, sampling, shared
        self.recorder = _Recorder()
        # Streams of its own: a θ that was trained with the same seed has seen the training's.
        seed = derived_seed("profile", sampling.seed)
        size = sampling.micro_batch
        self.engine = Engine(chain, reward, seed=seed, micro_batch=size, watch=self.recorder, kl=kl)
        self.warm_up = 0.0  # seconds of the newest draw that later ones do not take
        self._cold = True  # the first gradient of a process takes longer
        self.parameters = chain.parameters()
        self.moments = Moments(sum(p.numel() for p in self.parameters), chain.steps)
        self.last_reward, self.last_norm = float("nan"), float("nan")  # of the newest draw

    def draw(self) -> None:
        """One more batch gradient. Raises BenchError if it, or a reward, is not finite."""
        moments, self.warm_up = self.moments, 0.0
        batch = Batch(self.sampling.batch(moments.draws), moments.draws)
        if moments.draws == 0:
            device, state = self.engine.chain.device, copy.deepcopy(self.method.state)
            started = time.perf_counter()
            moments.idle_memory, moments.peak_memory = peak_of(device, lambda: self._gradient(batch))
            self.method.state.clear()
            self.method.state.update(state)
            self.warm_up = time.perf_counter() - started
            self._cold = False
        draw, trajectory = self._gradient(batch)
        if not (bool(torch.isfinite(draw.gradient).all()) and bool(torch.isfinite(trajectory.rewards).all())):
            advice = not_finite(self.engine.chain)
            raise BenchError(f"batch {moments.draws}: the gradient or a reward is not finite: {advice}")
        check = moments.draws < MIN_GROUPS or moments.draws % CHECK == 0
        if moments.same and not check and _whole(trajectory):
            draw.exact = {i: part for (_, i), part in draw.parts.items()}  # the same sums, as was seen so far
        elif not (self.shared and draw.deterministic) and self._needs_exact(trajectory):
            draw.exact = self._exact(trajectory)
        if check:
            moments.same = moments.same and _same(draw)
        moments.add(draw)
        self.last_reward, self.last_norm = draw.reward, float(draw.gradient.norm())

    def _gradient(self, batch: Batch) -> tuple[Draw, Trajectory]:
        started = clock()
        updates = self.method.updates(self.engine, batch)
        report = next(iter(updates))
        self._synchronize()
        seconds = clock() - started
        flat = -flattened([p.grad for p in self.parameters], self.parameters)
        trajectory = self.recorder.trajectory
        if trajectory is None:
            raise BenchError(
                "the method made a gradient without Engine.rollout: there is no trajectory to compare it with"
            )
        draw = Draw(
            gradient=flat.float().cpu(),
            parts=self.recorder.parts,
            exact=None,
            deterministic=_deterministic(trajectory),
            occupancy=self._occupancy(trajectory),
            plain=self.recorder.plain,
            seconds=None if self._cold else seconds,
            forward=report.forward,
            backward=report.backward,
            reward=float(report.rewards.double().mean()),
        )
        self._cold = False
        return draw, trajectory

    def _occupancy(self, trajectory: Trajectory) -> Tensor:
        """[3, T]: mean over samples of a step's weight as FO, HO, ZO in the sum."""
        kinds = [row for m in trajectory.micros for row in m.kind]
        weight = torch.cat([m.weight for m in trajectory.micros]).cpu().float()
        found = torch.zeros(len(TERMS), self.engine.chain.steps)
        for term, k in enumerate(TERMS):
            share = (weight * torch.tensor([[kind.term is k for kind in row] for row in kinds])).mean(0)
            found[term, : len(share)] = self.recorder.factors[k] * share
        return found

    def _synchronize(self) -> None:
        if self.engine.chain.device.type == "cuda":
            torch.cuda.synchronize()

    def _needs_exact(self, trajectory: Trajectory) -> bool:
        """Once per group, always where pairing pays, else while the target's noise matters beside the own."""
        moments = self.moments
        if trajectory.kinds <= PAIRED or moments.draws < GROUPS:
            return True
        target = moments.exact.spread() / moments.exact.total
        return target > SHARE * moments.estimate.spread() / moments.draws

    def _exact(self, trajectory: Trajectory) -> dict[int, Tensor]:
        steps: dict[int, Tensor] = {}

        def at_step(i: int, gradient: Tensor) -> None:
            part = gradient.float().cpu()
            steps[i] = steps[i] + part if i in steps else part

        self.engine.pathwise(trajectory, at_step)
        return steps


def _whole(trajectory: Trajectory) -> bool:
    """Every step of every sample is backpropagated with weight 1."""
    return trajectory.kinds == {Kind.FO} and all(bool((m.weight == 1).all()) for m in trajectory.micros)


def _same(draw: Draw) -> bool:
    """The estimate is the exact gradient itself, step by step: full backpropagation, unweighted."""
    if draw.exact is None or {i for _, i in draw.parts} != set(draw.exact):
        return False
    gaps = [norm2(part - draw.exact[i]) for (_, i), part in draw.parts.items()]
    return sum(gaps) <= ROUNDING**2 * sum(norm2(step) for step in draw.exact.values())


def _deterministic(trajectory: Trajectory) -> bool:
    """The chain ran as it is deployed: no noise, no perturbation, to its end."""
    quiet = all(not bool(m.eta.any()) and m.readout is None for m in trajectory.micros)
    return quiet and Kind.ZO not in trajectory.kinds


@dataclass(frozen=True)
class GradientProfile:
    """What `profile` returns. own: against the method's own objective (its noise, perturbations, plans)."""

    draws: int
    own: Bias
    noise: Noise
    seconds: float
    moments: Moments


def profile(
    method: Method,
    chain: Chain,
    reward: Reward,
    *,
    prompts: Sequence[str],
    seconds: float | None = None,
    draws: int | None = None,
    batch: int = 8,
    samples_per_prompt: int = 2,
    seed: int = 0,
    margin: float = MARGIN,
    level: float = LEVEL,
    tell: Callable[[Probe], None] | None = None,
    kl: float = 0.0,
) -> GradientProfile:
    """Profile an estimator on a chain and a reward of your own: bias, noise and cost of its batch gradients.

    Stops after `draws` batches or `seconds`, whichever comes first (one of them is needed). batch: samples of
    one gradient. margin: largest relative bias that still counts as unbiased. tell: called after every draw.
    kl: weight of the KL to the chain's reference in the objective.
    """
    if seconds is None and draws is None:
        raise BenchError("profile: say how long to measure: draws or seconds")
    if batch % samples_per_prompt:
        raise BenchError(f"profile: batch={batch} is no multiple of samples_per_prompt={samples_per_prompt}")
    sampling = Sampling(tuple(prompts), batch // samples_per_prompt, samples_per_prompt, batch, seed)
    probe = Probe(method, chain, reward, sampling, kl=kl)
    deadline = None if seconds is None else time.monotonic() + seconds
    for n in count(1):
        probe.draw()
        if tell is not None:
            tell(probe)
        if (draws is not None and n >= draws) or (deadline is not None and time.monotonic() > deadline):
            break
    moments = probe.moments
    own = bias(moments, moments.exact, margin, level)
    per_gradient = moments.seconds / moments.timed if moments.timed else float("nan")
    return GradientProfile(moments.draws, own, noise(moments, moments.exact, own.norm), per_gradient, moments)
