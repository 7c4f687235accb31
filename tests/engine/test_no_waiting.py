"""No step of a chain waits for a GPU: nothing is read from the device, and what is sent is not waited for.

The chain is on the meta device, which has no numbers: asking for one raises. Copies to it are seen by a
dispatch mode, and by what stands for `torch.tensor`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.base import lazy
from bench.engine import batch, chain, rollout
from bench.engine.adjoint_matching import Matching
from bench.engine.batch import Batch, Evaluations, MicroBatch, Perturbation
from bench.engine.engine import Engine
from bench.engine.likelihood_ratio import LikelihoodRatio, Ppo
from bench.engine.plan import Kind, Plan, Segment, tiled
from bench.models.image import ImageChain
from bench.models.text import TextCondition, Texts
from methods.rlr import Rlr, RlrConfig
from tests.support.pipelines import image_chain
from tests.support.toys import Pattern, batch_of

META, STEPS, COUNT = torch.device("meta"), 4, 3


class Uploads(TorchDispatchMode):
    """Counts operators that would copy something of more than a number from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        to = str((kwargs or {}).get("device", ""))
        mixed = any(t.is_meta for t in tensors) or to == "meta"
        if mixed and any(not t.is_meta and t.ndim for t in tensors):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Lists(TorchFunctionMode):
    """Counts tensors of the device that are indexed by lists: these are copied there and waited for."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].is_meta:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list | range) for part in index):
                self.seen.append(f"{func.__name__} {args[1]}")
        return func(*args, **(kwargs or {}))


def draw(keys: Sequence[Any], shape: Sequence[int], device: torch.device) -> Tensor:
    return torch.empty(len(keys), *shape, device=device)


def on_meta(**settings: Any) -> ImageChain:
    """A small chain without numbers. Its conditions are made here: texts are embedded once, not per step."""
    found = image_chain(steps=STEPS, **settings)
    for network in (found.network, found.vae):
        network.to("meta")
    found.adopt_lora()
    found.device, found.solver = META, found.solver.to(META)
    width = found.network.config["cross_attention_dim"]

    def condition(prompts: Sequence[str]) -> TextCondition:
        texts = Texts(torch.empty(len(prompts), 1, 7, width, device=META))
        return TextCondition(texts, texts if found.guided else None)

    found.condition = condition  # type: ignore[method-assign]
    return found


@contextmanager
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    """Within the context only `sent`, which a GPU does not wait for, brings numbers to the device."""
    tensor = torch.tensor

    def made(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        found = tensor(data, *args, **kwargs)
        assert not found.is_meta, "torch.tensor(…, device=…) is waited for: use `sent`"
        return found

    def sent(values: Sequence[float], device: torch.device) -> Tensor:
        return torch.empty(len(values), dtype=tensor(values).dtype, device=device)

    monkeypatch.setattr(torch, "tensor", made)
    monkeypatch.setattr(lazy.torch, "tensor", made)
    for module in (chain, batch, rollout):
        monkeypatch.setattr(module, "sent", sent)
    with Uploads() as uploads, Lists(uploads.seen):
        yield uploads


def micro_of(engine: Engine, plans: Sequence[Plan], perturbation: Perturbation) -> MicroBatch:
    micro = engine.roller.prepare(range(len(plans)), plans, batch_of(len(plans)), perturbation)
    micro.reward_grad = torch.empty(len(plans), *engine.chain.latent_shape, device=META)
    return micro


def rlr_plans() -> list[Plan]:
    """Blocks at different steps, so that rows of one micro-batch differ at every one."""
    method = Rlr(RlrConfig(h=1), STEPS)
    return [method._around(j) for j in (0, 2, 1)]


PLANS = {
    "rlr": rlr_plans(),
    "ddpo": [tiled([Kind.HO] * STEPS, [1.0] * STEPS)] * COUNT,
    "full_bp": [Plan((Segment(Kind.FO, 0, STEPS),), (0.0,) * STEPS)] * COUNT,
    "pass": [Plan((Segment(Kind.SKIP, 0, 1), Segment(Kind.PASS, 1, 3), Segment(Kind.FO, 3, 4)), (0.0,) * 4)]
    * COUNT,
    "drtune": [tiled([Kind.SKIP, Kind.DI, Kind.PASS, Kind.DI], [0.0] * 4)] * COUNT,
    "adjoint_matching": [tiled([Kind.AM, Kind.REF, Kind.AM, Kind.AM], [1.0] * 4)] * COUNT,
}


@pytest.mark.parametrize("solver", ["ddim", "dpmpp"])
@pytest.mark.parametrize("name", list(PLANS))
def test_rollout_and_pullback_ask_the_device_for_nothing(
    name: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("ddpo", "adjoint_matching") and solver == "dpmpp":
        pytest.skip("dpmpp's last step takes no noise")
    engine = Engine(on_meta(solver=solver), Pattern(), seed=0, micro_batch=COUNT, draw=draw)
    engine.roller._takes_noise = dict.fromkeys(range(STEPS), True)  # looked at once in a process
    micro = micro_of(engine, PLANS[name], Perturbation(mirrored=False))
    ppo, advantages = Ppo(0.1) if name == "ddpo" else None, torch.empty(COUNT, device=META)
    ratio = LikelihoodRatio(engine.roller, advantages, Evaluations(), ppo)
    monkeypatch.setattr(rollout, "check_latents", lambda *_: None)  # once for a whole chain
    added: list[Kind] = []
    with nothing_is_sent(monkeypatch) as uploads:
        engine.roller.roll(micro)
        engine.pullback.sweep(
            micro,
            [0, 1, 2],
            lambda kind, *_: added.append(kind),
            Evaluations(),
            ratio,
            False,
            Matching(),
        )
        for _ in ratio.zeroth_order(micro, [0, 1, 2]):
            added.append(Kind.ZO)
    assert uploads.seen == []
    assert set(added) == {k for row in micro.kind for k in row} - {Kind.SKIP, Kind.PASS, Kind.REF}


def test_pairs_and_kept_graphs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(on_meta(), Pattern(), seed=0, micro_batch=4, draw=draw, graphs="joint")
    engine.roller._takes_noise = dict.fromkeys(range(STEPS), True)
    plans = [plan for plan in rlr_plans()[:2] for _ in range(2)]
    micro = micro_of(engine, plans, Perturbation(antithetic=True, mirrored=True))
    monkeypatch.setattr(rollout, "check_latents", lambda *_: None)
    engine.graphs.start_batch(4, True)
    with nothing_is_sent(monkeypatch) as uploads:
        engine.roller.roll(micro, engine.graphs.make_step)
    assert uploads.seen == []
    assert micro.graphs


def test_the_test_sees_what_it_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.empty(4, 2, device=META)
    with nothing_is_sent(monkeypatch) as uploads:
        x[[0, 2]]
        x[[0, 2], 1] = 0.0
        x[torch.arange(2)]
        assert len(uploads.seen) == 3
        with pytest.raises(AssertionError):
            torch.tensor([0, 2], device=META)
    for ask in (
        lambda: x.tolist(),
        lambda: bool(x.isfinite().all()),
        lambda: x[0, 0].item(),
        lambda: x.cpu(),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask()


def test_whether_a_step_takes_noise_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.toy import ToyChain

    engine = Engine(ToyChain(STEPS), Pattern(), seed=0, micro_batch=2)
    plan, asked = tiled([Kind.HO] * STEPS, [1.0] * STEPS), list[int]()
    noisy = engine.roller._noisy
    monkeypatch.setattr(
        engine.roller,
        "_noisy",
        lambda m, i, std: asked.append(len(engine.roller._takes_noise)) or noisy(m, i, std),
    )
    for step in range(2):
        engine.rollout([plan] * 2, Batch(("a", "b"), step))
    assert asked == [0, 1, 2, 3, 4, 4, 4, 4]


def test_rows_that_follow_each_other_are_a_slice() -> None:
    cpu, x = torch.device("cpu"), torch.arange(10)
    rng = random.Random(0)
    for _ in range(20):
        rows = sorted(rng.sample(range(10), rng.randrange(10)))
        found = chain.at(rows, cpu)
        assert x[found].tolist() == rows
        whole = not rows or rows == list(range(rows[0], rows[-1] + 1))
        assert isinstance(found, slice) == whole
