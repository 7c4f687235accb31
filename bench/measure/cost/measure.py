"""Memory, time and work of one optimizer step, measured: the cell's own objects on this machine's device.

The step runs three times: once to warm up, once as it is, for time and the memory of process and GPU, and
once under the tracker, which makes it slower, for the live tensors. Where all memory is the CPU's, offload
moves nothing; the tracked step then makes the copies that a GPU would have in main memory, and counts them
apart.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from bench.engine.batch import Batch
from bench.engine.offload import offloading_by
from bench.experiment.choices import load_reward
from bench.experiment.settings import CellConfig
from bench.measure.cost.step import PROMPT, Counting, Subject, labels, step, subject_of, tracked, trained
from bench.measure.cost.times import Seconds, timed_step
from bench.measure.cost.tracker import Tracker
from bench.measure.cost.usage import Usage, usage
from bench.measure.peak_memory import peak_of
from bench.run.load import load_chain


def measure(config: CellConfig, device: torch.device) -> Usage:
    """What a trained cell's optimizer step takes. Raises BenchError for the base model."""
    subject, batch = _loaded(config, device)
    took: list[Seconds] = []
    _, most = peak_of(device, lambda: took.append(timed_step(subject, batch, device)))
    gpu = device.type == "cuda"
    reserved = torch.cuda.max_memory_reserved(device) if gpu else None
    tracker = Tracker(labels(subject.chain), device)
    with nullcontext() if gpu else offloading_by(Counting(tracker)), tracked(tracker, subject):
        work = step(subject, batch)
    return replace(
        usage(tracker, subject, work),
        seconds=took[0],
        process=None if gpu else most,
        allocated=most if gpu else None,
        reserved=reserved,
    )


def timed(config: CellConfig, device: torch.device) -> Seconds:
    """What a trained cell's optimizer step takes of time. Raises BenchError for the base model."""
    subject, batch = _loaded(config, device)
    return timed_step(subject, batch, device)


def _loaded(config: CellConfig, device: torch.device) -> tuple[Subject, Batch]:
    """A cell's objects, warm, and a batch: always the same one, so that plans are the same."""
    training = trained(config)
    torch.manual_seed(training.seed)
    chain, reward = load_chain(config.model.config, device), load_reward(training.reward, device)
    subject = subject_of(config, training, chain, reward)
    batch = Batch((PROMPT,) * training.train.batch, 0)
    step(subject, batch)
    return subject, batch
