"""Gradients at noised final samples: one network graph at a time, and nothing asked of the trajectory.

The samples of a micro-batch are laid out as if a step of the chain started from their noised x_0, and that
step is pulled back as any other: from a loss of its prediction (`bench.engine.regression`), or from the
reward's gradient behind the last step (DRaFT-LV).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from bench.engine.batch import Evaluations, MicroBatch
from bench.engine.chain import per_row
from bench.engine.plan import Kind
from bench.engine.pullback import Add, Pullback
from bench.engine.regression import Context, Prediction, Regression
from bench.engine.stages import FIRST_ORDER, ROLLOUT, stage


class ForwardProcess:
    """Pulls back from noised final samples. Each way returns a number for the log, summed over rows: []."""

    def __init__(self, pullback: Pullback) -> None:
        self.pullback, self.roller, self.chain = pullback, pullback.roller, pullback.roller.chain

    def regress(
        self, regression: Regression, micro: MicroBatch, rows: list[int], add: Add, evaluations: Evaluations
    ) -> Tensor:
        """Hand `add` the gradients of minus the loss of these rows, level by level; returns the loss."""
        levels = range(len(regression.steps))
        found = [self._level(regression, draw, micro, rows, add, evaluations) for draw in levels]
        return torch.stack(found).sum()

    def _level(
        self,
        regression: Regression,
        draw: int,
        micro: MicroBatch,
        rows: list[int],
        add: Add,
        evaluations: Evaluations,
    ) -> Tensor:
        i, share = regression.steps[draw], 1 / len(regression.steps)
        noised = replace(self._noised(micro, i, rows, draw), readout=i)
        beside = {name: self._plain(noised, i, rows, under) for name, under in regression.beside.items()}
        total = torch.zeros((), device=self.chain.device)

        def cotangent(predicted: Tensor, _: Tensor) -> Tensor:
            nonlocal total
            leaf = predicted.requires_grad_()
            with torch.enable_grad():
                loss = share * regression.loss(self._prediction(micro, i, rows, leaf, beside)).sum()
            total = loss.detach()
            return -torch.autograd.grad(loss, leaf)[0]

        count = len(rows) * self.chain.evaluations_per_step
        evaluations.forward += count * (1 + len(beside))
        evaluations.backward += count
        with stage(FIRST_ORDER):
            found = self.pullback.step(noised, i, rows, cotangent, need_input=False)
        add(Kind.MATCH, i, rows, found.parameters)
        return total

    def _prediction(
        self, micro: MicroBatch, i: int, rows: list[int], predicted: Tensor, beside: Mapping[str, Tensor]
    ) -> Prediction:
        samples = micro.at([micro.index[r] for r in rows])
        return Prediction(samples, self.chain.level(i), micro.states[-1].x[micro.at(rows)], predicted, beside)

    def last_step_again(
        self, copies: int, micro: MicroBatch, rows: list[int], add: Add, evaluations: Evaluations
    ) -> Tensor:
        """Hand `add` the reward's gradients through the last step, run again from x_0 noised to its level, so
        many times, each with the step's weight in the plan; returns the mean of these rewards."""
        i, count = micro.steps - 1, len(rows) * self.chain.evaluations_per_step
        weight, total = micro.weight[micro.at(rows), i], torch.zeros((), device=self.chain.device)
        for draw in range(copies):
            noised = self._noised(micro, i, rows, draw)
            rewards, slope = self.roller.reward_of(micro, rows, self._plain(noised, i, rows), need_grad=True)
            assert slope is not None
            total = total + rewards.sum() / copies
            evaluations.forward += count
            evaluations.again += count  # for its graph, which is built when the decoder's is gone
            evaluations.backward += count
            with stage(FIRST_ORDER):
                cotangent = slope * per_row(weight, slope)
                found = self.pullback.step(noised, i, rows, cotangent, need_input=False)
            add(Kind.FO, i, rows, found.parameters)
        return total

    def _noised(self, micro: MicroBatch, i: int, rows: list[int], draw: int) -> MicroBatch:
        """The micro-batch as if step i started from the noised x_0 of these rows; others are not noised."""
        x0 = micro.states[-1].x
        noise = torch.zeros_like(x0)
        noise[micro.at(rows)] = self.roller.forward_noise(micro, i, rows, draw)
        return replace(micro, states=[self.chain.noised(x0, noise, i)] * (micro.steps + 1), graphs={}, z={})

    @stage(ROLLOUT)
    @torch.no_grad()
    def _plain(self, noised: MicroBatch, i: int, rows: list[int], under: Context = nullcontext) -> Tensor:
        """What step i makes of these rows, [rows, …], without a graph."""
        with under():
            return self.roller.step(noised, noised.states[i].select(noised.at(rows)), i, rows).mean
