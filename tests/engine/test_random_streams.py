"""Random streams: keyed by purpose, seed, optimizer step, sample and chain step, and by nothing else."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.engine.random_streams
import bench.engine.rollout
from bench.engine.batch import MicroBatch, Perturbation
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.random_streams import BLOCK, derived_seed, normal, uniform
from bench.engine.rollout import Roller
from tests.support.toy import ToyChain
from tests.support.toys import Bowl, batch_of, engine_of

CPU = torch.device("cpu")
PLAN = Plan(
    (Segment(Kind.ZO, 0, 2), Segment(Kind.HO, 2, 3), Segment(Kind.ZO, 3, 4), Segment(Kind.FO, 4, 5)),
    (0, 0, 1, 0, 0),
)


def test_rows_depend_on_their_key_alone() -> None:
    keys = [("noise", 0, step, sample, 1) for step in range(2) for sample in range(3)]
    rows = normal(keys, (4, 3), CPU)
    assert torch.equal(normal(keys[::-1], (4, 3), CPU), rows.flip(0))
    assert torch.equal(normal(keys[4:5], (4, 3), CPU)[0], rows[4])
    assert len({tuple(r.flatten().tolist()) for r in rows}) == 6


def test_every_part_of_a_key_counts() -> None:
    keys = [
        ("noise", 1, 2, 3, 4),
        ("zo", 1, 2, 3, 4),
        ("noise", 2, 1, 3, 4),
        ("noise", 1, 2, 34),
        ("noise", 12, 3, 4),
    ]
    assert len({derived_seed(*key) for key in keys}) == 5
    assert uniform("plan", 0, 1).random() != uniform("plan", 0, 2).random()
    assert uniform("plan", 0, 1).random() == uniform("plan", 0, 1).random()


def test_seeds_stay_the_same_from_version_to_version() -> None:
    """Results on disk were made with them."""
    assert derived_seed("noise", 0, 1, 2, -1) == 1219946205318246401
    assert uniform("plan", 0, 1).randrange(10**6) == 220324


def test_numbers_are_standard_normal() -> None:
    rows = normal([("zo", 0, 0, n, 0) for n in range(2000)], (16,), CPU)
    assert abs(float(rows.mean())) < 3 / 32000**0.5
    assert abs(float(rows.square().mean()) - 1) < 3 * (2 / 32000) ** 0.5
    assert abs(float((rows[1:] * rows[:-1]).mean())) < 3 / 32000**0.5


@pytest.mark.parametrize(
    "count", [15, 16, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 15, BLOCK + 16, 3 * BLOCK + 7]
)
def test_numbers_drawn_in_blocks_are_those_of_one_piece_on_a_cpu(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored cells go on with them. No block is larger than what every GPU draws at once."""
    key = ("zo", 0, 1, 2, 3)
    whole = torch.randn(count, generator=torch.Generator().manual_seed(derived_seed(*key)))
    sizes, randn = list[int](), torch.randn

    def recorded(shape: torch.Size, **options: Any) -> Tensor:
        sizes.append(shape.numel())
        return randn(shape, **options)

    monkeypatch.setattr(bench.engine.random_streams.torch, "randn", recorded)
    assert torch.equal(normal([key], (count,), CPU)[0], whole)
    assert sum(sizes) == count and max(sizes) <= 2**15


def test_a_rows_shape_does_not_change_its_numbers() -> None:
    flat, shaped = (normal([("zo", 0), ("zo", 1)], shape, CPU) for shape in ((2 * BLOCK,), (2, BLOCK)))
    assert torch.equal(shaped, flat.unflatten(1, (2, BLOCK)))


def prepared(pert: Perturbation, index: list[int] | None = None) -> tuple[Roller, MicroBatch]:
    """A roller on the toy chain and a micro-batch of `PLAN`."""
    roller = Roller(ToyChain(5, 2), Bowl(), seed=3, reward_chunk=lambda rows: rows)
    index = index or list(range(6))
    return roller, roller.prepare(index, [PLAN] * len(index), batch_of(6, step=2), pert)


@pytest.mark.parametrize("draw", ["noise", "z"])
@pytest.mark.parametrize("pert", [Perturbation(), Perturbation(shared=True), Perturbation(antithetic=True)])
def test_a_samples_numbers_do_not_depend_on_the_rows_around_it(draw: str, pert: Perturbation) -> None:
    roller, whole = prepared(pert)
    _, part = prepared(pert, index=[4, 1])
    rows = getattr(roller, draw)(whole, 2, list(range(6)))
    assert torch.equal(getattr(roller, draw)(part, 2, [0, 1]), rows[[4, 1]])
    assert torch.equal(getattr(roller, draw)(whole, 2, [5, 3]), rows[[5, 3]])


def distinct(rows: Tensor) -> int:
    """Number of different rows, taking z and -z for one."""
    return len({tuple((r * r[0].sign()).tolist()) for r in rows.flatten(1)})


def test_no_two_samples_share_a_perturbation_but_antithetic_partners() -> None:
    rows = list(range(6))
    for shared in (False, True):
        roller, micro = prepared(Perturbation(shared=shared))
        assert distinct(torch.cat([roller.z(micro, i, rows) for i in range(5)])) == (6 if shared else 30)
        roller, micro = prepared(Perturbation(shared=shared, antithetic=True))
        assert distinct(torch.cat([roller.z(micro, i, rows) for i in range(5)])) == (3 if shared else 15)


def test_antithetic_partners_share_noise_and_have_opposite_perturbations() -> None:
    rows = list(range(6))
    roller, micro = prepared(Perturbation(antithetic=True))
    for i in (-1, 2):
        noise = roller.noise(micro, i, rows)
        assert torch.equal(noise[::2], noise[1::2])
        assert distinct(noise) == 3
    z = roller.z(micro, 0, rows)
    assert torch.equal(z[::2], -z[1::2])
    roller, micro = prepared(Perturbation())
    assert distinct(roller.noise(micro, -1, rows)) == 6


def test_no_number_serves_two_purposes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of a rollout is asked for once: x_T, the noise at the stochastic step, z at the ZO steps."""
    asked: Counter[Any] = Counter()

    def recorded(keys: Any, *rest: Any) -> Tensor:
        asked.update(keys)
        return normal(keys, *rest)

    monkeypatch.setattr(bench.engine.rollout, "normal", recorded)
    engine = engine_of(ToyChain(5, 2), micro_batch=4)
    trajectory = engine.rollout([PLAN] * 6, batch_of(6))
    assert set(asked.values()) == {1}
    assert len({derived_seed(*key) for key in asked}) == 6 * (1 + 1 + 3)
    rolled = set(asked)
    engine.gradient(trajectory, torch.ones(6))
    assert set(asked) == rolled, "the pull-back drew numbers that the rollout had not"


def test_rolling_out_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    engine = engine_of(ToyChain(5, 2))
    engine.gradient(engine.rollout([PLAN] * 4, batch_of(4)), torch.ones(4))
    assert torch.equal(torch.get_rng_state(), before)
