"""What only a GPU can show. Elsewhere these tests are skipped; `make gpu-check` runs them."""

import warnings

import pytest
import torch
from torch import Tensor

from bench.engine.batch import Evaluations, MicroBatch, Perturbation
from bench.engine.engine import Engine
from bench.engine.float16 import power_of_two
from bench.engine.plan import Kind, Plan, Segment
from bench.models.config import ModelConfig
from bench.run.load import load_chain
from tests.support.toys import Bowl, batch_of, engine_of, fill, gradient

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")


def on_gpu(steps: int, **settings: object) -> Engine:
    """The embedded model, in single precision unless settings say otherwise."""
    config = ModelConfig.model_validate(
        {"source": "embedded:sd", "steps": steps, "guidance": 1.0, **settings}
    )
    chain = load_chain(config, GPU)
    fill(chain, 0.05)
    return engine_of(chain, Bowl(), offload=config.offload)


def plan_of(steps: int) -> Plan:
    """A zeroth-order, a half-order, and first-order steps."""
    segments = (Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 2), Segment(Kind.FO, 2, steps))
    return Plan(segments, (0.0, 1.0, *[0.0] * (steps - 2)))


def waits(steps: int) -> int:
    """How often the device is waited for in a rollout and its way back, the second time."""
    engine = on_gpu(steps)

    def once() -> None:
        micro: MicroBatch = engine.roller.prepare([0, 1], [plan_of(steps)] * 2, batch_of(2), Perturbation())
        engine.roller.roll(micro)
        micro.reward_grad = torch.ones_like(micro.states[-1].x)
        engine.pullback.sweep(micro, [0, 1], lambda *_: None, Evaluations())

    once()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            once()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in seen)


def test_a_longer_chain_waits_for_the_device_no_more_often() -> None:
    assert waits(6) == waits(3)


def test_offloaded_activations_come_back_as_they_were() -> None:
    found = list[Tensor]()
    for offload in (False, True):
        engine = on_gpu(3, offload=offload)
        engine.gradient(engine.rollout([plan_of(3)] * 2, batch_of(2)), torch.tensor([1.0, -2.0]))
        found.append(gradient(engine.chain))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5 * float(found[0].abs().max()))


def test_the_powers_of_two_that_gradients_are_scaled_by_are_exact() -> None:
    exponents = torch.arange(-126, 128, dtype=torch.int32, device=GPU)
    assert power_of_two(exponents).tolist() == [2.0**n for n in range(-126, 128)]
