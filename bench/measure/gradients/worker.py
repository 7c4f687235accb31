"""One profile from start to status, in this process: what `python -m bench probe DIRECTORY` does."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from bench.base.files import append_rows, cut_rows
from bench.data import prompts as prompt_sets
from bench.engine.world import World
from bench.experiment.cell_digests import check_unchanged
from bench.experiment.choices import load_method, load_reward
from bench.experiment.settings import Choice
from bench.measure.gradients.probe import LEVEL, MARGIN, Probe, Sampling
from bench.measure.gradients.store import INIT, ProbeConfig, ProbeDir
from bench.measure.gradients.verdict import bias, relative_length
from bench.measure.gradients.work import ProbeWork
from bench.run.load import load_chain, load_lora
from bench.run.process import Exit
from bench.run.recorded import ENDINGS, REASONS, StopRequest, recorded
from bench.run.store import WorkState

SAVE_SECONDS = 20.0
MIN_DRAWS = 4


def run_probe(directory: ProbeDir, timeout: float | None, draws: int | None, precision: float | None) -> Exit:
    """Draw until the time is up, `draws` are reached or the bias is known to `precision`.

    timeout: seconds of drawing, without loading; the first draw is made in any case. With several limits the
    first one reached counts.
    """
    stop = StopRequest(None)
    with stop.listening():
        work = ProbeWork(directory, directory.config(), directory.id, draws)

        def draw(_: World, device: torch.device) -> Exit:
            shared = precision is None and not work.config.deployed
            session = _Session(directory, work.config, device, shared=shared)
            stop.limit(timeout)
            state = session.run(stop, draws, precision)
            moments = session.probe.moments
            directory.write_status(state, moments.draws, moments.seconds, REASONS[state])
            return ENDINGS[state]

        return recorded(work, draw)


class _Session:
    def __init__(self, directory: ProbeDir, config: ProbeConfig, device: torch.device, shared: bool) -> None:
        """shared: whether the reference's exact gradient may stand for the own one (see `Probe`)."""
        self.directory, self.config = directory, config
        check_unchanged(config.digests, config.prompts, [config.reward])
        torch.manual_seed(config.seed)  # the LoRA's initial values
        chain = load_chain(config.model.config, device)
        if config.at != INIT:
            load_lora(chain, Path(config.at))
        sampling = Sampling(
            prompt_sets.load(config.prompts).train,
            config.prompts_per_step,
            config.samples_per_prompt,
            config.micro_batch,
            config.seed,
        )
        method = load_method(Choice(name=config.base, config=config.method.config), chain.steps)
        reward = load_reward(config.reward, device)
        self.probe = Probe(method, chain, reward, sampling, shared, config.kl)
        saved, messages = directory.restore()
        for message in messages:
            print(message, flush=True)
        if saved is not None:
            self.probe.moments = saved.moments
            method.state.update(saved.method)
        if directory.draws.exists():
            cut_rows(directory.draws, self.probe.moments.draws)
        self._saved = -math.inf  # the first draw is saved at once
        self._longest = 0.0

    def run(self, stop: StopRequest, draws: int | None, precision: float | None) -> WorkState:
        """Returns `done`, or `preempted` after a signal."""
        moments, began = self.probe.moments, time.monotonic()
        while not self._enough(draws, precision):
            if (reason := stop()) is WorkState.PREEMPTED:
                self._save()
                return reason
            if moments.draws and stop.seconds_left() < self._longest:
                break
            started = time.monotonic()
            self.probe.draw()
            took = time.monotonic() - started - self.probe.warm_up
            # The next draw may take as long.
            self._longest = took if math.isclose(self._longest, 0.0) else max(0.8 * self._longest, took)
            self._log(moments.draws, time.monotonic() - began)
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self._save()
        self._save()
        return WorkState.DONE

    def _enough(self, draws: int | None, precision: float | None) -> bool:
        moments = self.probe.moments
        if draws is not None and moments.draws >= draws:
            return True
        if precision is None or moments.draws < MIN_DRAWS:
            return False
        if self.config.deployed:  # compared with itself it has no bias: what counts is how well |g| is known
            known = relative_length(moments.exact, LEVEL)
        else:
            known = bias(moments, moments.exact, MARGIN, LEVEL).relative
        return known.high - known.low <= 2 * precision  # false while unknown

    def _log(self, draw: int, seconds: float) -> None:
        found = {"reward_mean": self.probe.last_reward, "grad_norm": self.probe.last_norm}
        append_rows(self.directory.draws, [{"step": draw, **found, "drawing": seconds}])

    def _save(self) -> None:
        moments = self.probe.moments
        if moments.draws:
            self.directory.save(moments, self.probe.method.state)
        self.directory.write_status(WorkState.RUNNING, moments.draws, moments.seconds)
        self._saved = time.monotonic()
