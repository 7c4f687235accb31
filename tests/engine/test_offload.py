"""Activations go to main memory and back: on a CPU as they are, of a GPU by pinned memory without waiting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.engine.offload import Offloader, offloaded

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Recorded:
    """Stands for a tensor, and writes down what is done with it."""

    def __init__(self, device: torch.device, log: list[Any]) -> None:
        self.device, self.log = device, log

    def copy_(self, source: Any, non_blocking: bool = False) -> Recorded:
        self.log.append(("copy", source.device.type, self.device.type, non_blocking))
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Recorded:
        self.log.append(("to", self.device.type, device.type, non_blocking))
        return Recorded(device, self.log)


def test_of_a_gpu_pinned_memory_is_used_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    def empty_like(tensor: Any, *, device: str, pin_memory: bool) -> Recorded:
        log.append(("empty", device, pin_memory))
        return Recorded(torch.device(device), log)

    monkeypatch.setattr(torch, "empty_like", empty_like)
    offloader, there = Offloader(), Recorded(GPU, log)
    kept: Any = offloader.offload(there)  # type: ignore[arg-type]
    assert kept.device == CPU
    back: Any = offloader.restore(kept, GPU)
    assert back.device == GPU
    assert log == [("empty", "cpu", True), ("copy", "cuda", "cpu", True), ("to", "cpu", "cuda", True)]


def test_on_a_cpu_tensors_stay_what_they_are() -> None:
    tensor = torch.randn(3, 4).T
    assert Offloader().offload(tensor) is tensor
    assert Offloader().restore(tensor, CPU) is tensor
    assert Offloader().offload(SimpleNamespace(device=CPU, cpu=lambda: "as it is")) == "as it is"  # type: ignore[arg-type]


def test_gradients_are_the_same() -> None:
    x = torch.randn(5, requires_grad=True)
    with offloaded():
        found = torch.autograd.grad((x.exp() * x).sum(), x)[0]
    assert torch.equal(found, torch.autograd.grad((x.exp() * x).sum(), x)[0])
