"""The loop of one cell: method → gradient → optimizer, with evaluation, checkpoints and resume.

Training draws nothing by itself: prompts, noise and perturbations are functions of (seed, batch). So a
checkpoint is the parameters, the optimizer's and the method's state and a few counters, and a cell that was
killed ends in the same numbers as one that was not. Checkpoints are of moments between batches: a batch or an
evaluation that is not finished when the cell is to stop is left, and made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from bench.base.compiling import clock, compile_seconds
from bench.base.errors import BenchError, Damaged, NotFinite
from bench.base.files import Record, append_rows, cut_rows, read_rows
from bench.data import prompts as prompt_sets
from bench.engine.batch import Batch, Report
from bench.engine.engine import Engine
from bench.engine.finite import not_finite
from bench.engine.method import InferenceMethod
from bench.engine.world import Interrupted
from bench.experiment.choices import load_method
from bench.experiment.settings import TrainConfig, Training
from bench.run.checkpoints import Checkpoints
from bench.run.environment import peak_memory, reset_peak_memory
from bench.run.evaluations import incomplete
from bench.run.noise_choice import NoiseChooser
from bench.run.session import Session
from bench.run.spent import Limit
from bench.run.store import WorkState
from bench.run.training_state import TrainingState


class Trainer:
    """The training of one cell."""

    def __init__(self, session: Session, training: Training) -> None:
        self.session, self.settings = session, training.train
        self.counters, self.limit = session.counters, Limit(training.train)
        self.reward_name = training.reward.name
        self.reward = session.rewards[self.reward_name]
        self.method = load_method(training.method, session.chain.steps)
        self.engine = Engine(
            session.chain,
            self.reward,
            seed=training.seed,
            micro_batch=self.settings.micro_batch,
            rollout_batch=self.settings.rollout_batch,
            reward_chunk=self.settings.reward_chunk,
            world=session.world,
            offload=session.config.model.config.offload,
            graphs=self.settings.graphs,
            graph_budget=self.settings.graph_budget,
            kl=self.settings.kl if self.method.estimates else 0.0,
        )
        self.parameters = session.chain.parameters()
        self.optimizer = make_optimizer(self.settings, self.parameters)
        self.sampler = prompt_sets.PromptSampler(session.prompts.train)
        self.seed = training.seed
        self._graphs_told = (0, 0)
        self.checkpoints = Checkpoints(session.cell.path / "checkpoint")
        self.state = TrainingState(self.counters, self.parameters, self.optimizer, self.method)
        self._saved = time.monotonic()
        self._before: dict[str, Any] | None = None  # what a batch that is not finished started from

    def run(self, tell: Callable[[str], None]) -> None:
        """Train to the limit. Always ends with a checkpoint.

        Raises Interrupted where the world asks to stop: what was not finished by then is left out of the
        checkpoint, so that it is made again.
        """
        self._restore(tell)
        try:
            if isinstance(self.method, InferenceMethod):
                self._infer(self.method)
            else:
                self._train(tell)
        except Interrupted:
            if self._before is not None:
                self.state.put_back(self._before)
                self.session.cut_logs()
            self._save()
            raise
        self._save()

    def _train(self, tell: Callable[[str], None]) -> None:
        counters, saving = self.counters, self.settings.checkpoint_every
        while True:
            if counters.due:
                self.session.evaluate()
                self._save_in_time()
            if self.limit.reached(counters):
                break
            self.session.world.meet()
            before, self._before = replace(counters), self.state.copied()
            self._batch()
            # What is spent decides what comes next, in all processes alike.
            counters.seconds = max(self.session.world.gather_each(counters.seconds))
            self._before = None
            self._tell_graphs(tell)
            self.limit.check(counters)
            counters.due = self.limit.passed(before, counters)
            if counters.step // saving > before.step // saving:
                self._save()
            self._save_in_time()
        if counters.evaluated != counters.step:
            self.session.evaluate()

    def _infer(self, method: InferenceMethod) -> None:
        """The one evaluation of a method that trains nothing, picture by picture on record."""
        session = self.session
        improver = NoiseChooser(method, self.engine, session.cell, session.world.is_main)
        session.improve = improver
        if self.counters.evaluated != self.counters.step:
            session.evaluate()
            improver.record()

    def _batch(self) -> None:
        """One batch of samples and the optimizer steps that its method makes of it."""
        started, compiled = clock(), compile_seconds()
        reset_peak_memory(self.session.device)  # evaluation and loading take more than training, or less
        prompts = self.sampler.batch(
            self.counters.batch,
            seed=self.seed,
            prompts_per_step=self.settings.prompts_per_step,
            samples_per_prompt=self.settings.samples_per_prompt,
        )
        batch = Batch(prompts, self.counters.batch)
        self.counters.batch += 1
        self.counters.samples += len(prompts)
        for report in self.method.updates(self.engine, batch):
            norm = self._take_step(report, prompts)
            now, so_far = clock(), compile_seconds()
            self.counters.seconds += now - started
            self.counters.compile_seconds += so_far - compiled
            started, compiled = now, so_far
            peak = peak_memory(self.session.device)
            self.counters.memory = max(peak, self.counters.memory) if self.on_gpu else peak
            if self.session.world.is_main:
                append_rows(self.session.cell.metrics, [self._row(report, prompts, norm)])

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on one."""
        return self.session.device.type == "cuda"

    def _tell_graphs(self, tell: Callable[[str], None]) -> None:
        """Say, where it changes, how many of the steps that are pulled back had their graph kept."""
        kept = self.engine.graphs.kept
        if kept.kept and (kept.kept, kept.steps) != self._graphs_told:
            tell(str(kept))
        self._graphs_told = (kept.kept, kept.steps)

    def _take_step(self, report: Report, prompts: Sequence[str]) -> float:
        """Clip, step the optimizer; returns the gradient's norm.

        Raises NotFinite for a gradient that is not, and BenchError for such a reward of finite pictures.
        """
        step = self.counters.step + 1
        bad = (~torch.isfinite(report.rewards)).nonzero()[:, 0].tolist()
        if bad:
            raise BenchError(
                f"step {step}: reward '{self.reward_name}' is not finite on {len(bad)} of {len(prompts)} "
                f"pictures, the first of {prompts[bad[0]]!r}. The weights of a learned one may be damaged; "
                "if it runs in half precision, try dtype=float32"
            )
        if self.engine.kl and report.kl is None:
            raise BenchError(
                f"train.kl is {self.engine.kl:g}, and method '{self.session.config.label}' makes its "
                "gradient without the engine, which adds that term: --set train.kl=0"
            )
        limit = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        norm = float(clip_grad_norm_(self.parameters, limit))
        if not math.isfinite(norm):
            advice = not_finite(self.session.chain)
            raise NotFinite(f"step {step}: the gradient is not finite (norm {norm}): {advice}")
        self.optimizer.step()
        self.counters.step = step
        self.counters.nfe_forward += report.forward
        self.counters.nfe_backward += report.backward
        self.counters.nfe_again += report.again
        return norm

    def _row(self, report: Report, prompts: Sequence[str], norm: float) -> Record:
        rewards = report.rewards.double()
        return {
            **self.counters.row(),
            "reward_mean": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=0)),
            "grad_norm": norm,
            "lr": self.settings.lr,
            "terms": {kind: asdict(term) for kind, term in report.terms.items()},
            "kl": report.kl,
            "half_order_norms": {str(i): norm for i, norm in report.half_order_norms.items()},
            "micro_batch": self.engine.micro.of(len(prompts) // self.session.world.size),
            "graphs_kept": self.engine.graphs.kept.kept,
            "extra": report.extra,
        }

    def _save_in_time(self) -> None:
        """If the last checkpoint is old."""
        if time.monotonic() - self._saved >= self.settings.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self.session.world.is_main:
            return
        self.checkpoints.write(self.counters.step, self.state.to_bytes())
        self.session.cell.write_status(WorkState.RUNNING, self.counters.step, self.counters.seconds)

    def _restore(self, tell: Callable[[str], None]) -> None:
        data, messages = self.checkpoints.read()
        for message in messages:
            tell(message)
        if data is not None:
            self.state.from_bytes(data)
            tell(f"continuing at step {self.counters.step}")
        self.session.cut_logs()
        self._complete_evaluations(tell)

    def _complete_evaluations(self, tell: Callable[[str], None]) -> None:
        """Make the evaluation of the checkpoint's own step again where lines of it are lost.

        Raises Damaged where lines of an earlier one are: its parameters are gone.
        """
        cell, last = self.session.cell, self.counters.evaluated
        rows = read_rows(cell.evaluations)
        lacking = incomplete(rows, self.session.config)
        if last >= 0 and not any(row["step"] == last for row in rows):
            lacking.append(last)
        if not lacking:
            return
        if lacking != [self.counters.step]:
            raise Damaged(cell.evaluations, f"lines of the evaluation at step {lacking[0]} are missing")
        tell(f"lines of the evaluation at step {last} are missing: it is made again")
        if self.session.world.is_main:
            cut_rows(cell.evaluations, last - 1)
        self.session.evaluate()


def make_optimizer(settings: TrainConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or AdamW over the trainable parameters."""
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return cls(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
