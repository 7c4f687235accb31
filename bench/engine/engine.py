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
the sum over z (`Engine._zeroth_order`), which needs no network. `.grad` receives the negative, as optimizers
descend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.base.errors import BenchError
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
    Term,
    Trajectory,
)
from bench.engine.chain import Chain, State, Transition
from bench.engine.control_variate import Control, Sums
from bench.engine.forward_process import ForwardProcess
from bench.engine.kept_graphs import Graphs, Keep, spare_memory
from bench.engine.kl import check_noise, gather, to_go
from bench.engine.likelihood_ratio import HalfOrder, Ppo
from bench.engine.plan import FIRST, UNIT_WEIGHTS, Kind, Plan, Segment
from bench.engine.pullback import Add, Pullback
from bench.engine.regression import Regression
from bench.engine.reward import Reward
from bench.engine.rollout import Draw, MakeStep, Roller
from bench.engine.stages import ZEROTH_ORDER, stage
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
        if pert.paired and batch.prompts[::2] != batch.prompts[1::2]:
            raise BenchError("antithetic pairs share a prompt: make train.samples_per_prompt even")
        steps, readout = plans[0].steps, plans[0].readout
        if any((p.steps, p.readout, p.frames) != (steps, readout, plans[0].frames) for p in plans):
            raise ValueError("all plans of a batch have the same steps, the same readout and as many frames")
        if readout is None and steps != self.chain.steps:
            raise ValueError(f"the plans have {steps} steps, the chain has {self.chain.steps}")
        if self.graphs.keep == "joint" and not keep_graphs:
            raise BenchError(
                "train.graphs=joint keeps graphs for gradients of whole micro-batches, and this method takes "
                "them of single samples or of some (ddpo.minibatches, grpo.minibatches, rlr.start=norms): "
                "set train.graphs=staged or auto"
            )
        if self.kl:
            check_noise(e > 0 for p in plans for e in p.eta)
            if any(p.has(Kind.AM) for p in plans):
                raise BenchError(
                    "adjoint matching has the KL in its own objective, λ E[R] - KL: --set train.kl=0, and "
                    "adjoint_matching.reward_scale for its weight"
                )
        need = any(p.has(*FIRST) for p in plans) if reward_grad is None else reward_grad
        mine = self.world.share(len(batch.prompts))

        def roll(count: int) -> list[MicroBatch]:
            make_step = self._make_step(need, self.micro.of(len(mine)) if keep_graphs else None)
            micros: list[MicroBatch] = []
            for part in split(len(mine), count):
                index = mine[part.start : part.stop]
                micro = self.roller.prepare(index, [plans[b] for b in index], batch, pert)
                self.roller.roll(micro, make_step)
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
        parameters = self.chain.parameters()
        for p in parameters:
            p.grad = None  # the last step's, which nobody needs any more
        if self.watch is not None:
            self.watch.weighted(weights, ppo is None)
        scale = 1.0 / int(chosen.sum())
        penalties = self.kl * to_go(trajectory) if self.kl else None

        def pull_back(count: int) -> tuple[Terms, Evaluations, HalfOrder]:
            terms = Terms(parameters, trajectory.kinds, weights, scale, self.watch, half_order_norms)
            evaluations = Evaluations()
            half_order = HalfOrder(self.roller, advantages, evaluations, ppo, control, penalties)
            for micro in trajectory.micros:
                if count != self.graphs.together:
                    micro.graphs.clear()  # they are of other samples together
                for part in split(len(micro.index), count):
                    rows = [r for r in part if chosen[micro.index[r]]]
                    add = self._asking(partial(terms.add, micro))
                    self.pullback.sweep(micro, rows, add, evaluations, half_order, half_order_norms, matching)
                    for i, zeroth in self._zeroth_order(micro, rows, advantages, penalties):
                        terms.add_zeroth(i, zeroth)
                    terms.close_micro_batch()
                micro.forget()
            return terms, evaluations, half_order

        terms, evaluations, half_order = self.micro.run(trajectory.rows, pull_back)
        return Report(
            trajectory.rewards,
            self._written(terms),
            *self._counted(trajectory, evaluations),
            half_order_norms=terms.half_order_norms(self.chain.steps, self.world),
            control_fits={} if control is None else self._fits(half_order.fits),
            kl=None if trajectory.kl is None else float(trajectory.kl.sum(1).mean()),
        )

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
        parameters, samples = self.chain.parameters(), len(trajectory.batch.prompts)
        weights = {**UNIT_WEIGHTS, Kind.MATCH: 1.0}
        for p in parameters:
            p.grad = None
        if self.watch is not None:
            self.watch.weighted(weights, True)

        def pull_back(count: int) -> tuple[Terms, Evaluations, Tensor]:
            terms = Terms(parameters, kinds, weights, 1 / samples, self.watch, False)
            evaluations, told = Evaluations(), torch.zeros((), device=self.chain.device)
            for micro in trajectory.micros:
                if count != self.graphs.together:
                    micro.graphs.clear()  # they are of other samples together
                for part in split(len(micro.index), count):
                    add = self._asking(partial(terms.add, micro))
                    told = told + sweep(micro, list(part), add, evaluations)
                    terms.close_micro_batch()
                micro.forget()
            return terms, evaluations, told

        terms, evaluations, told = self.micro.run(trajectory.rows, pull_back)
        report = Report(trajectory.rewards, self._written(terms), *self._counted(trajectory, evaluations))
        return report, float(self.world.sum(told)) / samples

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
            index = list(part)
            micro = self.roller.prepare(index, [plan] * len(index), batch, Perturbation()).first_order()
            x = noise[part.start : part.stop].detach().requires_grad_()
            self.roller.roll(micro, self._make_step(True, len(index)), start=x.detach())
            self.roller.score(micro, need_grad=True)
            cotangent = self.pullback.sweep(micro, list(range(len(index))), None, evaluations)
            with torch.enable_grad():
                start = self.chain.prior(x).x
            gradients.append(torch.autograd.grad(start, x, cotangent)[0])
            rewards.append(micro.rewards)
        self.graphs.end_batch()
        forward = len(prompts) * self.chain.steps * self.chain.evaluations_per_step
        return NoiseGradient(torch.cat(rewards), torch.cat(gradients), forward, evaluations.backward)

    def _make_step(self, first_order: bool, together: int | None) -> MakeStep:
        """What makes the steps of a batch's rollout, each only if the batch is not to be left. together:
        samples that are pulled back at once, whose graphs may be kept; None: none may."""
        if together is not None:
            self.graphs.start_batch(together)
        plain = together is None or self.graphs.keep == "staged"

        def step(micro: MicroBatch, state: State, i: int) -> Transition:
            self.world.check()
            if plain:
                return self.roller.step(micro, state, i, list(range(len(micro.index))))
            return self.graphs.make_step(micro, state, i, first_order)

        return step

    def _asking(self, add: Add) -> Add:
        """The same, only if the batch is not to be left: a sweep comes here at each step."""

        def asked(*step: Any) -> None:
            self.world.check()
            add(*step)

        return asked

    def _written(self, terms: Terms) -> dict[str, Term]:
        """Write minus the weighted sum of the terms into `.grad`; what is reported of each."""
        self.graphs.end_batch()
        gradient, report = terms.summed(self.world)
        parameters = self.chain.parameters()
        for p, g in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = -g.reshape(p.shape).to(p.dtype)
        return report

    def _zeroth_order(
        self, micro: MicroBatch, rows: list[int], advantages: Tensor, penalties: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """(step, Σ over rows of w A z / s, flat [d]); a z shared by a sample's steps counts once."""
        pert, wanted = micro.perturbation, set(rows)
        local = advantages.to(micro.eta.device)[micro.at(micro.index)]
        dear = None if penalties is None else penalties[micro.at(micro.index)]
        for i in range(micro.steps):
            active = sorted(wanted.intersection(micro.rows(i, Kind.ZO)))
            if not active:
                continue
            with stage(ZEROTH_ORDER):
                z, these = self.roller.z(micro, i, active), micro.at(active)
                known = local[these] if dear is None else local[these] - dear[these, i]
                gradient = (known * micro.weight[these, i] / pert.scale) @ z
            yield i, gradient
            if pert.shared:
                wanted.difference_update(active)

    def _counted(self, trajectory: Trajectory, evaluations: Evaluations) -> tuple[int, int, int]:
        """forward, backward, again of a gradient, over all processes. The rollout counts with its first one;
        for later ones the parameters are new, so that its steps are run because the method needs them."""
        counts = torch.tensor(astuple(evaluations), dtype=torch.float64, device=self.chain.device)
        forward, backward, again = (int(n) for n in self.world.sum(counts))
        first, trajectory.used = not trajectory.used, True
        return (forward + trajectory.forward, backward, again) if first else (forward + again, backward, 0)

    def _fits(self, fits: Mapping[int, Sums]) -> dict[int, Sums]:
        """What a control variate learns from, over all processes: each must learn the same."""
        table = [astuple(fits[i] if i in fits else Sums()) for i in range(self.chain.steps)]
        summed = self.world.sum(torch.tensor(table, dtype=torch.float64, device=self.chain.device))
        return {i: sums for i, row in enumerate(summed.tolist()) if (sums := Sums(*row)).rows > 0}
