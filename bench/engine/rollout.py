"""Stages 1 and 2 of a gradient: run the chain and the reward without keeping a network graph.

What a micro-batch leaves behind is small: the latent at every step, the reward and, where a plan pulls back
from the reward, dR/dx_0. Noises and perturbations are kept as keys of their random streams, not as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.base.errors import BenchError
from bench.engine.batch import Batch
from bench.engine.chain import Chain, MakesVideos, State, Transition
from bench.engine.gaussian import gaussian_log_prob, per_row
from bench.engine.micro_batch import KINDS, MicroBatch, Perturbation
from bench.engine.plan import Kind, Plan
from bench.engine.random_streams import normal, uniform
from bench.engine.reward import Reward, scores
from bench.engine.stages import DECODE, REWARD, ROLLOUT, stage

if TYPE_CHECKING:
    pass


Run = Callable[[State, int], Transition]  # all rows of a micro-batch from a state, at a step


class Roller:
    """Runs plans on a chain and a reward; every random number is keyed by (seed, step, sample, chain
    step)."""

    def __init__(self, chain: Chain, reward: Reward, seed: int, reward_chunk: int) -> None:
        self.chain, self.reward, self.seed, self.reward_chunk = chain, reward, seed, reward_chunk
        self.normal = normal  # a simulation of memory draws nothing

    def prepare(self, index: Sequence[int], plans: Sequence[Plan], batch: Batch) -> MicroBatch:
        """Lay out a micro-batch of the batch's samples `index` with their plans; nothing runs yet."""
        prompts = [batch.prompts[b] for b in index]
        distinct = {p: n for n, p in enumerate(dict.fromkeys(plans))}
        layouts = [_layout(p) for p in distinct]
        which = [distinct[p] for p in plans]

        def column(name: str) -> Tensor:
            return torch.tensor([layout[name] for layout in layouts], device=self.chain.device)[which]

        return MicroBatch(
            index=list(index),
            prompts=prompts,
            cond=self.chain.condition(prompts),
            eta=column("eta"),
            weight=column("weight"),
            kind=column("kind"),
            ends=column("ends"),
            onward=column("onward"),
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

    def noise(self, micro: MicroBatch, batch: Batch, i: int, rows: list[int], pert: Perturbation) -> Tensor:
        """Standard normal noise injected by step i (x_T for i = -1): [rows, *latent_shape]."""
        keys = [self._key("noise", micro, batch, i, r, pert) for r in rows]
        noise = self.normal(keys, self.chain.latent_shape, self.chain.device)
        if pert.mirrored and i >= 0:
            noise *= per_row(self._signs(micro, rows), noise)
        return noise

    def z(self, micro: MicroBatch, batch: Batch, i: int, rows: list[int], pert: Perturbation) -> Tensor:
        """The parameters' perturbation directions at step i, flat: [rows, d]."""
        at = -1 if pert.shared else i
        dim = sum(p.numel() for p in self.chain.parameters())
        z = self.normal([self._key("zo", micro, batch, at, r, pert) for r in rows], (dim,), self.chain.device)
        if pert.antithetic:
            z *= self._signs(micro, rows)[:, None]
        return z

    def _signs(self, micro: MicroBatch, rows: list[int]) -> Tensor:
        """1 for the first of a pair, -1 for the second: [rows]."""
        return torch.tensor([1.0 - 2.0 * (micro.index[r] % 2) for r in rows], device=self.chain.device)

    def perturbations(
        self, micro: MicroBatch, batch: Batch, i: int, rows: list[int], pert: Perturbation
    ) -> Tensor | None:
        """s·z at step i for rows whose step is ZO, zero for the others; None when no row is."""
        zo = (micro.kind[rows, i] == KINDS.index(Kind.ZO)).nonzero()[:, 0].tolist()
        if not zo:
            return None
        z = self.z(micro, batch, i, [rows[k] for k in zo], pert)
        if len(zo) == len(rows):
            return z.mul_(pert.scale)
        delta = torch.zeros(len(rows), z.shape[1], device=z.device)
        delta[zo] = z.mul_(pert.scale)
        return delta

    def perturbed(
        self, micro: MicroBatch, batch: Batch, i: int, rows: list[int], pert: Perturbation
    ) -> AbstractContextManager[None]:
        """Within the context, these rows run at the parameters of step i's rollout."""
        delta = self.perturbations(micro, batch, i, rows, pert)
        return nullcontext() if delta is None else self.chain.perturbed(delta)

    @stage(ROLLOUT)
    @torch.no_grad()
    def roll(
        self,
        micro: MicroBatch,
        batch: Batch,
        pert: Perturbation,
        run: Run | None = None,
        start: Tensor | None = None,
    ) -> None:
        """Stage 1: fill the states x_T … x_0 and the log-probabilities.

        run: makes the steps, if they are to leave graphs; what it returns has none. start: x_T
        [rows, *latent_shape], instead of one drawn.
        """
        rows = list(range(len(micro.index)))
        state = self.chain.prior(self.noise(micro, batch, -1, rows, pert) if start is None else start)
        micro.log_prob = torch.zeros_like(micro.eta)
        for i in range(micro.steps):
            state = state.reset(micro.resets[:, i])
            micro.states.append(state)
            step = self.step(micro, batch, pert, state, i, rows) if run is None else run(state, i)
            x, std = step.mean, step.std
            micro.std.append(std)
            noisy = (std.flatten(1) > 0).all(1).nonzero()[:, 0].tolist()
            self._check_noise(micro, i, noisy)
            if noisy:
                x = x.clone()
                x[noisy] += std[noisy] * self.noise(micro, batch, i, noisy, pert)
                micro.log_prob[noisy, i] = gaussian_log_prob(x[noisy], step.mean[noisy], std[noisy])
            valid = None if step.history is None else torch.ones(len(rows), dtype=torch.bool, device=x.device)
            state = State(x, step.history, valid)
        micro.states.append(state)

    @torch.no_grad()
    def step(
        self, micro: MicroBatch, batch: Batch, pert: Perturbation, state: State, i: int, rows: list[int]
    ) -> Transition:
        """Step i of these rows from `state`, which holds them alone, perturbed where it is ZO; no graph."""
        with self.perturbed(micro, batch, i, rows, pert):
            return self.transition(micro, state, i, rows)

    def transition(
        self, micro: MicroBatch, state: State, i: int, rows: Sequence[int], x_path_only: bool = False
    ) -> Transition:
        """Step i of these rows from `state`, which holds them alone; at a readout the prediction of x_0."""
        pick = torch.tensor(rows, device=micro.eta.device)
        cond = micro.cond.select(pick)
        if i != micro.readout:
            return self.chain.transition(state, i, cond, micro.eta[pick, i], x_path_only)
        x0 = self.chain.predict_x0(state, i, cond, x_path_only)
        return Transition(x0, torch.zeros_like(per_row(micro.eta[pick, i], x0)))

    def score(self, micro: MicroBatch, need_grad: bool) -> None:
        """Stage 2: rewards and, if asked for, dR/dx_0."""
        micro.rewards, micro.reward_grad = self.reward_of(
            micro.states[-1].x, micro.prompts, need_grad, micro.frames
        )

    @stage(REWARD)
    def reward_of(
        self, x0: Tensor, prompts: list[str], need_grad: bool, frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards [rows], higher is better, and their gradients with respect to x0 [rows, …]; in chunks.

        frames: [rows, k], of videos: those that are rewarded.
        """
        rewards, grads = [], []
        for start in range(0, len(prompts), self.reward_chunk):
            part = slice(start, start + self.reward_chunk)
            x = x0[part].detach().requires_grad_(need_grad)
            with torch.set_grad_enabled(need_grad):
                score = self.signed(x, prompts[part], None if frames is None else frames[part])
                if need_grad:
                    grads.append(torch.autograd.grad(score.sum(), x)[0])
            rewards.append(score.detach().float())
        return torch.cat(rewards), torch.cat(grads) if need_grad else None

    def signed(self, x0: Tensor, prompts: list[str], frames: Tensor | None = None) -> Tensor:
        """Rewards [rows], higher is better, all at once; differentiable in x0."""
        sign = 1.0 if self.reward.higher_is_better else -1.0
        with stage(DECODE):
            media = self.chain.decode(x0) if frames is None else self.chain.decode(x0, frames)
        return sign * scores(self.reward, media, prompts)

    def _check_noise(self, micro: MicroBatch, i: int, noisy: list[int]) -> None:
        ends = micro.ends[:, i] & (micro.kind[:, i] == KINDS.index(Kind.HO))
        if set(ends.nonzero()[:, 0].tolist()) - set(noisy):
            raise BenchError(
                f"step {i} of {self.chain.steps} injects no noise whatever eta (sigma = 0), so no likelihood "
                "ratio exists there. This is the last step of DPM-Solver++, and of DDIM when the scheduler "
                "has set_alpha_to_one=True: use model.solver=ddim with set_alpha_to_one=False in the model's "
                "scheduler_config.json, or a method that is first order there"
            )

    def _key(
        self, use: str, micro: MicroBatch, batch: Batch, i: int, row: int, pert: Perturbation
    ) -> tuple[int | str, ...]:
        sample = micro.index[row] // 2 if pert.paired else micro.index[row]
        return (use, self.seed, batch.step, sample, i)


def _layout(plan: Plan) -> dict[str, list[Any]]:
    """The plan's per-step properties, each a list over its T steps."""
    segments = [plan.segment_at(i) for i in range(plan.steps)]
    graph = (Kind.FO, Kind.PASS)
    return {
        "eta": [float(e) for e in plan.eta],
        "weight": [float(s.weight) for s in segments],
        "kind": [KINDS.index(s.kind) for s in segments],
        "ends": [s.stop == i + 1 for i, s in enumerate(segments)],
        "onward": [
            s.start < i if s.kind is Kind.HO else i > 0 and s.kind in graph and segments[i - 1].kind in graph
            for i, s in enumerate(segments)
        ],
        "resets": list(plan.resets()),
    }
