"""Runs plans and leaves the gradient in `.grad`: the only loop over steps that any method has.

Stages, so that two network graphs never live at once: rollout without a graph; reward and dR/dx_0; then one
step at a time is run again with a graph, multiplied with its cotangent and freed. With A = R - b, averaged
over the batch (RLR paper, Eq. 6, with the last step counted once):

    FO  J_θ(step)ᵀ c,  c pulled back from dR/dx_0
    HO  J_θ(block)ᵀ (A ε / σ),  ε the noise at the block's last step, intermediate noises fixed
    ZO  A z / s,  the step run with θ + s z

Graphs can be held jointly instead (`bench.engine.joint_graphs`): the memory of a direct implementation, the
same gradient.
`.grad` receives the negative, as optimizers descend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Batch, Report, Term
from bench.engine.chain import Chain
from bench.engine.control_variate import SUMS, Control, Sums
from bench.engine.joint_graphs import Joint
from bench.engine.likelihood_ratio import Clipped, Counts, Signal
from bench.engine.micro_batch import MicroBatch, Perturbation
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.pullback import PullBack, Trajectory
from bench.engine.reward import Reward
from bench.engine.rollout import Roller
from bench.engine.stages import FIRST_ORDER, ZEROTH_ORDER, stage
from bench.engine.terms import UNIT_WEIGHTS, Accumulator, Terms, Watch, flattened
from bench.engine.world import World


@dataclass(frozen=True)
class NoiseGradient:
    """rewards: [B], higher is better. gradient: dR/dx_T of each picture's own, [B, *latent_shape].

    forward / backward: network evaluations of all B pictures, as in `bench.engine.batch.Report`.
    """

    rewards: Tensor
    gradient: Tensor
    forward: int
    backward: int


class Engine:
    """Estimates gradients of the expected reward of a chain, one batch (= one optimizer step) at a time."""

    def __init__(
        self,
        chain: Chain,
        reward: Reward,
        *,
        seed: int,
        micro_batch: int,
        reward_chunk: int | None = None,
        world: World | None = None,
        offload: bool = False,
        joint: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """micro_batch: samples per rollout. reward_chunk: samples per decode-and-reward (default:
        micro_batch).

        offload: park the activations of a step's graph in main memory between its forward and its backward.
        joint: hold the graphs of the whole batch together instead of one step's at a time
        (`bench.engine.joint_graphs`). watch: is told what every gradient is made of, step by step.
        """
        if joint and watch is not None:
            raise ValueError("joint graphs give no gradients of single steps, which a watch is told")
        self.chain, self.reward, self.seed = chain, reward, seed
        self.micro_batch = micro_batch
        self.world = world or World()
        self.watch = watch
        self.roller = Roller(chain, reward, seed, reward_chunk or micro_batch)
        self.puller = PullBack(self.roller, offload)
        self.joint = Joint(self.roller, offload) if joint else None

    def rollout(
        self,
        plans: Sequence[Plan],
        batch: Batch,
        perturbation: Perturbation | None = None,
        *,
        reward_grad: bool | None = None,
    ) -> Trajectory:
        """Stages 1 and 2. plans: one per sample of the batch. Returns what `gradient` pulls back.

        reward_grad: whether dR/dx_0 is computed; by default when a plan has FO steps.
        """
        pert = perturbation or Perturbation()
        if pert.paired and batch.prompts[::2] != batch.prompts[1::2]:
            raise BenchError("antithetic pairs share a prompt: make train.samples_per_prompt even")
        steps, readout = plans[0].steps, plans[0].readout
        if any((p.steps, p.readout, p.frames) != (steps, readout, plans[0].frames) for p in plans):
            raise ValueError("all plans of a batch have the same steps, the same readout and as many frames")
        if readout is None and steps != self.chain.steps:
            raise ValueError(f"the plans have {steps} steps, the chain has {self.chain.steps}")
        need = any(p.has(Kind.FO) for p in plans) if reward_grad is None else reward_grad
        mine = self.world.share(len(batch.prompts))
        micros: list[MicroBatch] = []
        for start in range(mine.start, mine.stop, self.micro_batch):
            index = range(start, min(start + self.micro_batch, mine.stop))
            micro = self.roller.prepare(index, [plans[b] for b in index], batch)
            if self.joint is None:
                self.roller.roll(micro, batch, pert)
                self.roller.score(micro, need)
            else:
                self.joint.roll(micro, batch, pert, need)
            micros.append(micro)
        signed = self.world.gather(torch.cat([micro.rewards for micro in micros]))
        raw = signed if self.reward.higher_is_better else -signed
        forward = len(batch.prompts) * steps * self.chain.evaluations_per_step
        kinds = frozenset(s.kind for p in plans for s in p.segments)
        trajectory = Trajectory(batch, pert, kinds, micros, raw, signed, forward)
        if self.watch is not None:
            self.watch.rolled_out(trajectory)
        return trajectory

    def gradient(
        self,
        trajectory: Trajectory,
        advantages: Tensor,
        *,
        weights: Mapping[Kind, float] = UNIT_WEIGHTS,
        ppo: Clipped | None = None,
        control: Control | None = None,
        include: Tensor | None = None,
        half_order_norms: bool = False,
    ) -> Report:
        """Stages 3 and 4: write -∇ of the batch mean into `.grad` and report what it was made of.

        advantages: [B], for HO and ZO. weights: factor per kind. ppo: clipped re-use of the samples. control:
        a control variate for HO. include: [B] bool, average over these samples only. half_order_norms:
        measure them, which takes HO samples one at a time (a norm of sums would depend on the size of
        micro-batches).
        """
        chosen = torch.ones(len(advantages), dtype=torch.bool) if include is None else include.cpu()
        if self.joint is not None:
            self.joint.check(trajectory, bool(chosen.all()), half_order_norms)
        if any(m.has(Kind.FO) and not m.pulls_from_reward for m in trajectory.micros):
            raise ValueError("first-order steps need a rollout with reward_grad=True")
        parameters = self.chain.parameters()
        for p in parameters:
            p.grad = None  # the last step's, which nobody needs any more
        scale = 1.0 / int(chosen.sum())
        terms = Terms(parameters, trajectory.kinds, weights, scale, self.watch, half_order_norms)
        if self.watch is not None:
            self.watch.weighted(weights, ppo is None)
        self.puller.counts = Counts()
        for micro in trajectory.micros:
            rows = [r for r, b in enumerate(micro.index) if chosen[b]]
            local = advantages[micro.index].to(micro.eta.device)
            signal = Signal(local, ppo, control)
            if self.joint is None:
                self.puller.sweep(
                    trajectory, micro, rows, signal, terms.add, half_order_singly=half_order_norms
                )
            else:
                for kind, gradients in self.joint.pull(trajectory, micro, signal, self.puller.counts):
                    terms.by_kind[kind].add(gradients)
            for i, zeroth in self._zeroth_order(trajectory, micro, rows, local):
                terms.add_zeroth(i, zeroth)
            terms.close_micro_batch()
        report = self._report(trajectory, terms)
        norms = terms.half_order_norms(self.chain.steps, self.world)
        fits = {} if control is None else self._fits()
        return replace(report, half_order_norms=norms, control_fits=fits)

    def pathwise(
        self, trajectory: Trajectory, at_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """The exact gradient of the batch-mean reward through the whole chain, flat [d].

        Every step is pulled back with the trajectory's own noise and perturbations held fixed, whatever its
        kind, so the mean of this over trajectories is the gradient of the objective that the plans estimate.
        Runs the reward again where the rollout left no dR/dx_0. at_step: is handed each step's share of the
        result, once per micro-batch.
        """
        parameters = self.chain.parameters()
        accumulator, count = Accumulator(parameters), len(trajectory.batch.prompts)
        for micro in trajectory.micros:
            if micro.reward_grad is None:
                self.roller.score(micro, need_grad=True)
            for i, back in self.puller.whole(trajectory, micro):
                accumulator.add(back.parameters)
                if at_step is not None:
                    at_step(i, flattened(back.parameters, parameters) / count)
        accumulator.close_micro_batch()
        return self.world.sum(accumulator.total) / count

    def noise_gradient(self, prompts: Sequence[str], noise: Tensor) -> NoiseGradient:
        """What x_T does to the reward of the picture that the deterministic chain (eta = 0) makes of it.

        noise: x_T, [B, *latent_shape]. Exact through all steps, with one network graph at a time and
        micro_batch samples at once. Parameters and their `.grad` are left alone.
        """
        plan = Plan((Segment(Kind.FO, 0, self.chain.steps),), (0.0,) * self.chain.steps)
        batch, pert = Batch(tuple(prompts), 0), Perturbation()
        rewards, gradients = list[Tensor](), list[Tensor]()
        self.puller.counts = Counts()
        for rows in torch.arange(len(prompts)).split(self.micro_batch):
            index = rows.tolist()
            micro = self.roller.prepare(index, [plan] * len(index), batch)
            x = noise[index].detach().requires_grad_()
            self.roller.roll(micro, batch, pert, start=x.detach())
            self.roller.score(micro, need_grad=True)
            trajectory = Trajectory(batch, pert, frozenset(), [micro], micro.rewards, micro.rewards, 0)
            with stage(FIRST_ORDER):
                *_, (_, last) = self.puller.whole(trajectory, micro, need_parameters=False)
            with torch.enable_grad():
                start = self.chain.prior(x).x
            gradients.append(torch.autograd.grad(start, x, last.x)[0])
            rewards.append(micro.rewards)
        forward = len(prompts) * self.chain.steps * self.chain.evaluations_per_step
        return NoiseGradient(torch.cat(rewards), torch.cat(gradients), forward, self.puller.counts.backward)

    def _zeroth_order(
        self, trajectory: Trajectory, micro: MicroBatch, rows: list[int], advantages: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """(step, Σ over rows of w A z / s, flat [d]); a z shared by a sample's steps counts once."""
        pert, wanted = trajectory.perturbation, set(rows)
        for i in range(micro.steps):
            active = sorted(wanted.intersection(micro.rows(i, Kind.ZO)))
            if not active:
                continue
            with stage(ZEROTH_ORDER):
                z = self.roller.z(micro, trajectory.batch, i, active, pert)
                gradient = (advantages[active] * micro.weight[active, i] / pert.scale) @ z
            yield i, gradient
            if pert.shared:
                wanted.difference_update(active)

    def _report(self, trajectory: Trajectory, terms: Terms) -> Report:
        parameters, weights, scale = self.chain.parameters(), terms.weights, terms.scale
        gradient = parameters[0].new_zeros(sum(p.numel() for p in parameters), dtype=torch.float32)
        parts = torch.tensor([float(len(trajectory.micros))], device=gradient.device)
        parts = int(self.world.sum(parts))
        report: dict[str, Term] = {}
        for kind, term in terms.by_kind.items():
            self.world.sum(term.total)
            self.world.sum(term.squares)
            gradient += weights[kind] * scale * term.total
            report[kind.value.lower()] = term.term(weights[kind] * scale, parts)
        for p, g in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = -g.reshape(p.shape).to(p.dtype)
        counts = self.puller.counts
        extra = torch.tensor([counts.forward, counts.backward], dtype=torch.float64, device=gradient.device)
        forward, backward = (int(n) for n in self.world.sum(extra))
        return Report(trajectory.rewards, report, trajectory.forward + forward, backward)

    def _fits(self) -> dict[int, Sums]:
        """What a control variate learns from, over all processes: each must learn the same."""
        fits = self.puller.counts.fits
        table = torch.zeros(self.chain.steps, SUMS, dtype=torch.float64, device=self.chain.device)
        for i, sums in fits.items():
            table[i] = torch.tensor(sums, dtype=torch.float64)
        rows = self.world.sum(table).tolist()
        return {i: tuple(row) for i, row in enumerate(rows) if row[0] > 0}
