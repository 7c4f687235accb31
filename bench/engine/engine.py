"""Runs plans and leaves the gradient in `.grad`. What every method does is done here, stage by stage.

Stages: rollout; reward and dR/dx_0; then one step at a time, last to first, its Jacobian is multiplied with a
cotangent. Its graph was kept from the rollout where there is memory for it, or the step is run again, so that
two network graphs never live at once (`bench.engine.kept_graphs`). With A = R - b, averaged over the batch
(RLR paper, Eq. 6, with the last step counted once):

    FO  J_θ(step)ᵀ c,  c pulled back from dR/dx_0 (DI: along the solver's linear path)
    AM  J_θ(step)ᵀ c,  c from a regression on dR/dx_{i+1} (`bench.engine.adjoint_matching`)
    HO  J_θ(block)ᵀ (A ε / σ),  ε the noise at the block's last step, intermediate noises fixed
    ZO  A z / s,  the step run with θ + s z

There are three loops over steps: forward (`Roller.roll`), backward (`Pullback.sweep`, for FO and HO), and
the sum over z (`LikelihoodRatio.zeroth_order`), which needs no network. `.grad` receives the negative, as
optimizers descend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bench.engine.adjoint_matching import Matching
from bench.engine.at_once import AtOnce, Setting, split
from bench.engine.batch import (
    Batch,
    Evaluations,
    Gradients,
    MicroBatch,
    NoiseGradient,
    Perturbation,
    Report,
    Trajectory,
)
from bench.engine.chain import Chain, State, Transition
from bench.engine.control_variate import Control
from bench.engine.forward_process import ForwardProcess
from bench.engine.kept_graphs import Graphs, Keep, spare_memory
from bench.engine.kl import check_plans, gather, to_go
from bench.engine.likelihood_ratio import LikelihoodRatio, Ppo
from bench.engine.plan import FIRST, UNIT_WEIGHTS, Kind, Plan, Segment, common_steps
from bench.engine.pullback import Add, Pullback
from bench.engine.regression import Regression
from bench.engine.reward import Reward
from bench.engine.rollout import Draw, Roller
from bench.engine.terms import Accumulator, Terms, Watch, flattened
from bench.engine.world import World

Sweep = Callable[[MicroBatch, list[int], Add, Evaluations], Tensor]  # pulls some rows back


class Engine:
    """Estimates gradients of the expected reward of a chain, one batch (= one optimizer step) at a time."""

    def __init__(
        self,
        chain: Chain,
        reward: Reward,
        *,
        seed: int,
        micro_batch: Setting,
        rollout_batch: Setting | None = None,
        reward_chunk: int | None = None,
        world: World | None = None,
        offload: bool = False,
        graphs: Keep = "staged",
        graph_budget: int | None = None,
        watch: Watch | None = None,
        draw: Draw | None = None,
        kl: float = 0.0,
    ) -> None:
        """micro_batch: samples whose graphs are built at once. rollout_batch: samples that go through the
        chain at once where no graph is kept, not fewer (default: micro_batch). Either may be `auto`: the
        whole batch, halved where memory runs out. reward_chunk: samples per decode-and-reward (default:
        micro_batch).

        offload: keep the activations of a step's graph in main memory between its forward and its backward.
        graphs: which are kept from the rollout (`bench.engine.kept_graphs`). graph_budget: bytes that `auto`
        may keep; None: what the device has to spare. watch: is told what every gradient is made of, step by
        step. draw: what draws standard normal numbers, as for `Roller`. kl: weight of the KL to the model
        that training starts from, in the objective (`bench.engine.kl`).
        """
        self.chain, self.reward, self.seed = chain, reward, seed
        self.micro = AtOnce(micro_batch, "train.micro_batch")
        self.rollouts = self.micro if rollout_batch is None else AtOnce(rollout_batch, "train.rollout_batch")
        self.world = world or World()
        self.watch = watch
        chunk = (lambda rows: reward_chunk) if reward_chunk else self.micro.of
        self.kl = kl
        self.roller = Roller(chain, reward, seed, chunk, draw, compare=kl > 0)
        spare = partial(spare_memory, chain.device) if graph_budget is None else lambda _: graph_budget
        self.graphs = Graphs(self.roller, offload, graphs, spare)
        self.pullback = Pullback(self.graphs, kl)
        self.forward_process = ForwardProcess(self.pullback)

    def rollout(
        self,
        plans: Sequence[Plan],
        batch: Batch,
        perturbation: Perturbation | None = None,
        *,
        reward_grad: bool | None = None,
        keep_graphs: bool = True,
    ) -> Trajectory:
        """Stages 1 and 2. plans: one per sample of the batch. Returns what `gradient` pulls back.

        reward_grad: whether dR/dx_0 is computed; by default when a plan has FO steps. keep_graphs: whether
        the first gradient is to be of whole micro-batches, so that the rollout's graphs serve for it. Raises
        BenchError if it is not, and they are to be joint.
        """
        pert = perturbation or Perturbation()
        pert.check_pairs(batch.prompts)
        steps = common_steps(plans, self.chain.steps)
        if self.kl:
            check_plans(plans)
        need = any(p.has(*FIRST) for p in plans) if reward_grad is None else reward_grad
        mine = self.world.share(len(batch.prompts))

        def roll(count: int) -> list[MicroBatch]:
            self.graphs.start_batch(self.micro.of(len(mine)) if keep_graphs else None, need)
            micros: list[MicroBatch] = []
            for part in split(len(mine), count):
                index = mine[part.start : part.stop]
                micro = self.roller.prepare(index, [plans[b] for b in index], batch, pert)
                self.roller.roll(micro, self._make_step)
                self.roller.score(micro, need)
                micros.append(micro)
            return micros

        micros = self.rollouts.run(len(mine), roll)
        signed = self.world.gather(torch.cat([micro.rewards for micro in micros]))
        raw = signed if self.reward.higher_is_better else -signed
        forward = len(batch.prompts) * steps * self.chain.evaluations_per_step
        kinds = frozenset(s.kind for p in plans for s in p.segments)
        trajectory = Trajectory(batch, kinds, micros, raw, signed, forward)
        if self.kl:
            gather(trajectory, self.world, self.chain.evaluations_per_step)
        if self.watch is not None:
            self.watch.rolled_out(trajectory)
        return trajectory

    def gradient(
        self,
        trajectory: Trajectory,
        advantages: Tensor,
        *,
        weights: Mapping[Kind, float] = UNIT_WEIGHTS,
        ppo: Ppo | None = None,
        control: Control | None = None,
        matching: Matching | None = None,
        include: Tensor | None = None,
        half_order_norms: bool = False,
    ) -> Report:
        """Stages 3 and 4: write -∇ of the batch mean into `.grad` and report what it was made of.

        advantages: [B] of the whole batch, over all processes, for HO and ZO. weights: the term weights, a
        factor for each kind. ppo: clipped re-use of the samples. control: a control variate for HO. matching:
        what AM steps match. include: [B] bool, average over these samples only. half_order_norms: measure
        them, which takes HO samples one at a time (a norm of sums would depend on the size of micro-batches).
        """
        chosen = torch.ones(len(advantages), dtype=torch.bool) if include is None else include.cpu()
        if any(m.has(*FIRST) and m.reward_grad is None for m in trajectory.micros):
            raise ValueError("first-order steps need a rollout with reward_grad=True")
        scale = 1.0 / int(chosen.sum())
        penalties = self.kl * to_go(trajectory) if self.kl else None

        def pull_back(count: int) -> tuple[Terms, LikelihoodRatio]:
            terms = Terms(
                self.chain.parameters(),
                trajectory.kinds,
                weights,
                scale,
                self.world,
                self.watch,
                plain=ppo is None,
                norms=half_order_norms,
            )
            ratio = LikelihoodRatio(self.roller, advantages, terms.evaluations, ppo, control, penalties)
            for micro, part in self._parts(trajectory, count, terms):
                rows = [r for r in part if chosen[micro.index[r]]]
                add = partial(terms.add, micro)
                self.pullback.sweep(micro, rows, add, terms.evaluations, ratio, half_order_norms, matching)
                for i, zeroth in ratio.zeroth_order(micro, rows):
                    terms.add_zeroth(i, zeroth)
            return terms, ratio

        terms, ratio = self.micro.run(trajectory.rows, pull_back)
        self.graphs.end_batch()
        return replace(terms.written(trajectory), control_fits=ratio.control_fits(self.world))

    def regression(self, trajectory: Trajectory, regression: Regression) -> Report:
        """Write the gradient of a loss at noised final samples into `.grad`, and report it with the loss."""
        sweep = partial(self.forward_process.regress, regression)
        report, loss = self._from_noised(trajectory, frozenset({Kind.MATCH}), sweep)
        return replace(report, extra={"loss": loss})

    def last_step_again(self, trajectory: Trajectory, copies: int) -> Report:
        """Stages 3 and 4 of plans whose last step is FO: its gradient, and that of so many further runs of it
        from x_0 noised anew, are added up, each with the step's weight."""

        def sweep(micro: MicroBatch, rows: list[int], add: Add, evaluations: Evaluations) -> Tensor:
            self.pullback.sweep(micro, rows, add, evaluations)
            return self.forward_process.last_step_again(copies, micro, rows, add, evaluations)

        report, again = self._from_noised(trajectory, trajectory.kinds, sweep)
        sign = 1.0 if self.reward.higher_is_better else -1.0
        return replace(report, extra={"reward_again": sign * again})

    def _from_noised(
        self, trajectory: Trajectory, kinds: frozenset[Kind], sweep: Sweep
    ) -> tuple[Report, float]:
        """Write the gradient that a sweep of each micro-batch gives into `.grad`; the report, and the mean
        over samples of what the sweeps return."""
        samples, weights = len(trajectory.batch.prompts), {**UNIT_WEIGHTS, Kind.MATCH: 1.0}

        def pull_back(count: int) -> tuple[Terms, Tensor]:
            terms = Terms(self.chain.parameters(), kinds, weights, 1 / samples, self.world, self.watch)
            told = torch.zeros((), device=self.chain.device)
            for micro, rows in self._parts(trajectory, count, terms):
                told = told + sweep(micro, rows, partial(terms.add, micro), terms.evaluations)
            return terms, told

        terms, told = self.micro.run(trajectory.rows, pull_back)
        self.graphs.end_batch()
        return terms.written(trajectory), float(self.world.sum(told)) / samples

    def pathwise(
        self, trajectory: Trajectory, at_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """The exact gradient of the batch-mean reward, less the KL term, through the whole chain, flat [d].

        Every step is pulled back with the trajectory's own noise and perturbations held fixed, whatever its
        kind, so the mean of this over trajectories is the gradient of the objective that the plans estimate.
        Runs the reward again where the rollout left no dR/dx_0. at_step: is handed each step's share of the
        result, once per micro-batch.
        """
        parameters = self.chain.parameters()
        accumulator, samples = Accumulator(parameters), len(trajectory.batch.prompts)

        def add(_: Kind, i: int, __: list[int], gradients: Gradients) -> None:
            accumulator.add(gradients)
            if at_step is not None:
                at_step(i, flattened(gradients, parameters) / samples)

        for micro in trajectory.micros:
            if micro.reward_grad is None:
                self.roller.score(micro, need_grad=True)
            whole = micro.first_order()
            for part in split(len(micro.index), self.micro.of(trajectory.rows)):
                self.pullback.sweep(whole, list(part), add, Evaluations())
        accumulator.close_micro_batch()
        return self.world.sum(accumulator.total) / samples

    def noise_gradient(self, prompts: Sequence[str], noise: Tensor) -> NoiseGradient:
        """What x_T does to the reward of the picture that the deterministic chain (eta = 0) makes of it.

        noise: x_T, [B, *latent_shape]. Exact through all steps, with one network graph at a time and
        micro_batch samples at once. Parameters and their `.grad` are left alone.
        """
        plan = Plan((Segment(Kind.FO, 0, self.chain.steps),), (0.0,) * self.chain.steps)
        batch, evaluations = Batch(tuple(prompts), 0), Evaluations()
        rewards, gradients = list[Tensor](), list[Tensor]()
        for part in split(len(prompts), self.micro.of(len(prompts))):
            micro = self.roller.prepare(part, [plan] * len(part), batch, Perturbation()).first_order()
            x = noise[part.start : part.stop].detach().requires_grad_()
            self.graphs.start_batch(len(part), True)
            self.roller.roll(micro, self._make_step, start=x.detach())
            self.roller.score(micro, need_grad=True)
            cotangent = self.pullback.sweep(micro, list(range(len(part))), None, evaluations)
            with torch.enable_grad():
                start = self.chain.prior(x).x
            gradients.append(torch.autograd.grad(start, x, cotangent)[0])
            rewards.append(micro.rewards)
        self.graphs.end_batch()
        forward = len(prompts) * self.chain.steps * self.chain.evaluations_per_step
        return NoiseGradient(torch.cat(rewards), torch.cat(gradients), forward, evaluations.backward)

    def _make_step(self, micro: MicroBatch, state: State, i: int) -> Transition:
        """Step i of a rollout, only if the batch is not to be left."""
        self.world.check()
        return self.graphs.make_step(micro, state, i)

    def _parts(
        self, trajectory: Trajectory, count: int, terms: Terms
    ) -> Iterator[tuple[MicroBatch, list[int]]]:
        """Rows of every micro-batch, so many at a time, each of which is a micro-batch of the terms."""
        for micro in trajectory.micros:
            if count != self.graphs.together:
                micro.graphs.clear()  # they are of other samples together
            for part in split(len(micro.index), count):
                yield micro, list(part)
                terms.close_micro_batch()
            micro.forget()
