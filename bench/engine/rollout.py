"""Stages 1 and 2 of a gradient: run the chain and the reward without keeping a network graph.

What a micro-batch leaves behind is small: the latent at every step, the reward and, where a plan pulls back
from the reward, dR/dx_0. Noises and perturbations are kept as keys of their random streams, not as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.at_once import split
from bench.engine.batch import Batch, MicroBatch, Perturbation
from bench.engine.chain import (
    Chain,
    MakesVideos,
    State,
    Transition,
    gaussian_log_prob,
    per_row,
    reference,
    sent,
)
from bench.engine.finite import check_latents, check_slope
from bench.engine.float16 import Product, decoder
from bench.engine.kl import divergence
from bench.engine.plan import Kind, Plan, layout, no_noise
from bench.engine.random_streams import normal, uniform
from bench.engine.reward import Reward, scores
from bench.engine.stages import DECODE, REWARD, ROLLOUT, stage

MakeStep = Callable[[MicroBatch, State, int], Transition]  # step i of all rows, from their state
CUT = {Kind.PASS: {"x_path_only": True}, Kind.DI: {"detach_input": True}}  # what a step's graph leaves out
Draw = Callable[[Sequence[tuple[int | str, ...]], Sequence[int], torch.device], Tensor]


class Roller:
    """Runs plans on a chain and a reward; every random number is keyed by (seed, step, sample, chain
    step)."""

    def __init__(
        self,
        chain: Chain,
        reward: Reward,
        seed: int,
        reward_chunk: Callable[[int], int],
        draw: Draw | None = None,
        compare: bool = False,
    ) -> None:
        """reward_chunk: how many of so many samples are decoded and rewarded at once. draw: what draws
        standard normal numbers, instead of `bench.engine.random_streams.normal`. compare: steps with noise
        are made by the model that training starts from, too (`bench.engine.kl`)."""
        self.chain, self.reward, self.seed, self.reward_chunk = chain, reward, seed, reward_chunk
        self.compare = compare
        self.draw = draw or normal
        self._takes_noise: dict[int, bool] = {}  # by step: whether its sigma is more than 0

    def prepare(
        self, index: Sequence[int], plans: Sequence[Plan], batch: Batch, perturbation: Perturbation
    ) -> MicroBatch:
        """Lay out a micro-batch of the batch's samples `index` with their plans; nothing runs yet."""
        prompts = [batch.prompts[b] for b in index]
        distinct = {plan: layout(plan) for plan in dict.fromkeys(plans)}
        layouts = [distinct[plan] for plan in plans]

        def column(name: str) -> list[Any]:
            return [by_step[name] for by_step in layouts]

        return MicroBatch(
            batch=batch,
            perturbation=perturbation,
            index=list(index),
            prompts=prompts,
            cond=self.chain.condition(prompts),
            eta=torch.tensor(column("eta"), device=self.chain.device),
            weight=torch.tensor(column("weight"), device=self.chain.device),
            kind=column("kind"),
            perturbed=column("perturbed"),
            ends=column("ends"),
            onward=column("onward"),
            noisy=column("noisy"),
            resets=column("resets"),
            readout=plans[0].readout,
            frames=self._drawn_frames(index, plans[0].frames, batch),
        )

    def _drawn_frames(self, index: Sequence[int], count: int | None, batch: Batch) -> Tensor | None:
        """`count` different frames of each sample, uniformly drawn: [rows, count]. Raises BenchError."""
        if count is None:
            return None
        total = self.chain.frames if isinstance(self.chain, MakesVideos) else 0
        if count > total:
            raise BenchError(
                f"the reward is to see {count} frames, and the model makes {total or 'pictures'}"
            )
        drawn = [
            sorted(uniform("frames", self.seed, batch.step, b).sample(range(total), count)) for b in index
        ]
        return torch.tensor(drawn, device=self.chain.device)

    def noise(self, micro: MicroBatch, i: int, rows: list[int]) -> Tensor:
        """Standard normal noise injected by step i (x_T for i = -1): [rows, *latent_shape]."""
        noise = self.draw(self._keys("noise", micro, i, rows), self.chain.latent_shape, self.chain.device)
        if micro.perturbation.mirrored and i >= 0:
            noise *= per_row(self._signs(micro, rows), noise)
        return noise

    def forward_noise(self, micro: MicroBatch, i: int, rows: list[int], draw: int) -> Tensor:
        """Standard normal noise that final samples are noised with to step i's level: [rows, *latent_shape].

        draw: which of several, each independent of the others.
        """
        keys = [(*key, draw) for key in self._keys("forward", micro, i, rows)]
        return self.draw(keys, self.chain.latent_shape, self.chain.device)

    def z(self, micro: MicroBatch, i: int, rows: list[int]) -> Tensor:
        """The parameters' perturbation directions at step i, flat: [rows, d]."""
        step = -1 if micro.perturbation.shared else i
        if step in micro.z:
            kept, z = micro.z[step]
            return z if rows == kept else z[micro.at([kept.index(r) for r in rows])]
        keys = self._keys("zo", micro, step, rows)
        z = self.draw(keys, (sum(p.numel() for p in self.chain.parameters()),), self.chain.device)
        if micro.perturbation.antithetic:
            z *= self._signs(micro, rows)[:, None]
        return z

    def _keys(self, use: str, micro: MicroBatch, i: int, rows: list[int]) -> list[tuple[int | str, ...]]:
        """What the rows' random numbers depend on; both samples of a pair have the same."""
        each, samples = 2 if micro.perturbation.paired else 1, [micro.index[r] for r in rows]
        if micro.perturbation.common_noise and i < 0 and use == "noise":
            samples = [micro.batch.prompts.index(micro.batch.prompts[b]) for b in samples]
        return [(use, self.seed, micro.batch.step, b // each, i) for b in samples]

    def _signs(self, micro: MicroBatch, rows: list[int]) -> Tensor:
        """1 for the first of a pair, -1 for the second: [rows]."""
        return sent([1.0 - 2.0 * (micro.index[r] % 2) for r in rows], self.chain.device)

    def perturbations(self, micro: MicroBatch, i: int, rows: list[int]) -> Tensor | None:
        """s·z at step i for rows whose step is ZO, zero for the others; None when no row is."""
        zo = [k for k, r in enumerate(rows) if micro.perturbed[r][i]]
        if not zo:
            return None
        z = self.z(micro, i, [rows[k] for k in zo])
        z = z * micro.perturbation.scale if micro.z else z.mul_(micro.perturbation.scale)
        if len(zo) == len(rows):
            return z
        delta = torch.zeros(len(rows), z.shape[1], device=z.device)
        delta[micro.at(zo)] = z
        return delta

    def perturbed(self, micro: MicroBatch, i: int, rows: list[int]) -> AbstractContextManager[None]:
        """Within the context, these rows run at the parameters of step i's rollout."""
        delta = self.perturbations(micro, i, rows)
        return nullcontext() if delta is None else self.chain.perturbed(delta)

    @stage(ROLLOUT)
    @torch.no_grad()
    def roll(self, micro: MicroBatch, make_step: MakeStep | None = None, start: Tensor | None = None) -> None:
        """Stage 1: fill the states x_T … x_0 and the log-probabilities.

        make_step: makes the steps, if they are to leave graphs; what it returns has none. start: x_T
        [rows, *latent_shape], instead of one drawn. Raises NotFinite for latents that are not finite.
        """
        rows = list(range(len(micro.index)))
        state = self.chain.prior(self.noise(micro, -1, rows) if start is None else start)
        micro.log_prob, micro.kl = torch.zeros_like(micro.eta), torch.zeros_like(micro.eta)
        for i in range(micro.steps):
            state = state.reset([row[i] for row in micro.resets])
            micro.states.append(state)
            step = self.step(micro, state, i, rows) if make_step is None else make_step(micro, state, i)
            x, std = step.mean, step.std
            micro.std.append(std)
            noisy = self._noisy(micro, i, std)
            self._check_noise(micro, i, noisy)
            if noisy:
                some = micro.at(noisy)
                x = x.clone()
                x[some] += std[some] * self.noise(micro, i, noisy)
                micro.log_prob[some, i] = gaussian_log_prob(x[some], step.mean[some], std[some])
                if self.compare:
                    self._compare(micro, state, i, noisy, step)
            state = step.next_state(x)
        micro.states.append(state)
        check_latents([s.x for s in micro.states[1:]], micro.prompts, f"batch {micro.batch.step}: ")

    def _compare(self, micro: MicroBatch, state: State, i: int, rows: list[int], step: Transition) -> None:
        """Note where the model that training starts from goes from these rows' states, and the KL to it."""
        some = micro.at(rows)
        with reference(self.chain):
            mean = self.transition(micro, state.select(some), i, rows).mean
        micro.reference[i] = step.mean.clone()
        micro.reference[i][some] = mean
        micro.kl[some, i] = divergence(step.mean[some], mean, step.std[some])

    @torch.no_grad()
    def step(self, micro: MicroBatch, state: State, i: int, rows: list[int]) -> Transition:
        """Step i of these rows from `state`, which holds them alone, perturbed where it is ZO; no graph."""
        with self.perturbed(micro, i, rows):
            return self.transition(micro, state, i, rows)

    def transition(
        self, micro: MicroBatch, state: State, i: int, rows: Sequence[int], kind: Kind = Kind.FO
    ) -> Transition:
        """Step i of these rows from `state`, which holds them alone; at a readout the prediction of x_0.

        kind: what the graph is for, if there is one; it does not change the numbers.
        """
        cond, eta, cut = micro.cond_of(rows), micro.eta[micro.at(rows), i], CUT.get(kind, {})
        if i != micro.readout:
            return self.chain.transition(state, i, cond, eta, **cut)
        x0 = self.chain.predict_x0(state, i, cond, **cut)
        return Transition(x0, torch.zeros_like(per_row(eta, x0)))

    def score(self, micro: MicroBatch, need_grad: bool) -> None:
        """Stage 2: rewards and, if asked for, dR/dx_0."""
        rows = list(range(len(micro.index)))
        micro.rewards, micro.reward_grad = self.reward_of(micro, rows, micro.states[-1].x, need_grad)

    @stage(REWARD)
    def reward_of(
        self, micro: MicroBatch, rows: list[int], x0: Tensor, need_grad: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards [rows] of x0 [rows, …], higher is better, and their gradients with respect to it."""
        rewards, grads = [], []
        for places in split(len(rows), self.reward_chunk(len(rows))):
            some, x = rows[places.start : places.stop], x0[places.start : places.stop].detach()
            if need_grad:
                score, grad = self._with_gradient(micro, some, x)
                grads.append(grad)
            else:
                with torch.no_grad():
                    score = self._signed(micro, some, self._decoded(micro, some, x))
            rewards.append(score.detach().float())
        return torch.cat(rewards), torch.cat(grads) if need_grad else None

    def _with_gradient(self, micro: MicroBatch, rows: list[int], x0: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards [rows] and their gradients with respect to x0 [rows, …], which go through the reward first
        and then through the decoder."""
        found: tuple[Tensor, Tensor] | None = None  # the rewards, and their gradients on media

        def product() -> Product:
            nonlocal found
            x = x0.detach().requires_grad_()
            with torch.enable_grad():
                media = self._decoded(micro, rows, x)
                if found is None:
                    leaf = media.detach().requires_grad_()
                    score = self._signed(micro, rows, leaf)
                    found = score.detach(), torch.autograd.grad(score.sum(), leaf)[0]
                    prompts = [micro.prompts[r] for r in rows]
                    check_slope(*found, prompts, f"batch {micro.batch.step}: ")
            return [media], [x], [found[1]]

        (grad,) = decoder(self.chain).vjp(product)
        assert found is not None and grad is not None
        return found[0], grad

    def _decoded(self, micro: MicroBatch, rows: list[int], x0: Tensor) -> Tensor:
        with stage(DECODE):
            frames = () if micro.frames is None else (micro.frames[micro.at(rows)],)
            return self.chain.decode(x0, *frames)

    def _signed(self, micro: MicroBatch, rows: list[int], media: Tensor) -> Tensor:
        """Rewards [rows] of media [rows, …], higher is better."""
        sign = 1.0 if self.reward.higher_is_better else -1.0
        return sign * scores(self.reward, media, [micro.prompts[r] for r in rows])

    def _noisy(self, micro: MicroBatch, i: int, std: Tensor) -> list[int]:
        """Rows that step i injects noise into: where the plan does, unless the solver's sigma is 0 there.

        Of a chain's std only that is not known on the host; it is looked at once for each step of the chain,
        as a GPU has to be waited for.
        """
        rows = [r for r, row in enumerate(micro.noisy) if row[i]]
        if rows and i not in self._takes_noise:
            self._takes_noise[i] = bool((std[micro.at(rows)] > 0).all())
        return rows if rows and self._takes_noise[i] else []

    def _check_noise(self, micro: MicroBatch, i: int, noisy: list[int]) -> None:
        ends = {r for r in micro.rows(i, Kind.HO) if micro.ends[r][i]}.union(micro.rows(i, Kind.AM))
        if ends.difference(noisy):
            raise no_noise(i, self.chain.steps)
