"""One kernel, and how many kernels and waits for the device an optimizer step takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from bench.engine.batch import Batch
from bench.experiment.choices import load_reward
from bench.measure.cost.step import PROMPT, step, subject_of, trained
from bench.run.load import load_chain
from scripts.gpu.gradients import free
from scripts.gpu.row import Place, Row

METHODS = ("full_bp", "ddpo", "zo-antithetic")
SETTINGS = ("model.steps=6", "train.prompts_per_step=1", "train.samples_per_prompt=4")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
ASKED = ("aten::_local_scalar_dense",)  # what waits on a GPU; on a CPU nothing does
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")


def one(place: Place) -> Iterator[Row]:
    """A product of two matrices is what it should be, in every dtype that networks run in."""
    a = torch.arange(64.0).reshape(8, 8) / 64
    exact = a.double() @ a.double()
    for dtype in (torch.float32, torch.float16, *[torch.bfloat16] * place.bfloat16):
        found = (a.to(place.device, dtype) @ a.to(place.device, dtype)).double().cpu()
        off = float((found - exact).norm() / exact.norm())
        fault = "" if off < 0.01 else f"a product of matrices in {dtype} is {off:.1%} off"
        yield Row("kernel", str(dtype).removeprefix("torch."), f"{off:.1e} off", fault)


def launches(place: Place) -> Iterator[Row]:
    """Kernels and waits of a second optimizer step, reward and Adam included, over the steps of its chain."""
    config = place.cell(METHODS[0], *SETTINGS)
    chain = load_chain(config.model.config, place.device)
    reward = load_reward(trained(config).reward, place.device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * place.gpu
    for method in METHODS[: 1 if place.small else None]:
        config = place.cell(method, *SETTINGS)
        training = trained(config)
        subject = subject_of(config, training, chain, reward)
        batches = [Batch((PROMPT,) * training.train.batch, n) for n in range(2)]
        step(subject, batches[0])
        with profile(activities=activities) as seen:
            step(subject, batches[1])
        counts = {event.key: event.count for event in seen.key_averages()}
        kernels, waits = (
            sum(counts.get(name, 0) for name in names) / chain.steps
            for names in (LAUNCHES, WAITS if place.gpu else ASKED)
        )
        told = f"{kernels:.0f} kernels, {waits:.1f} waits" if place.gpu else f"{waits:.0f} numbers read"
        yield Row("profile", method, f"{told} per step of the chain")
    free()
