"""Sums over draws: what they estimate, that they survive a checkpoint, that they do not grow."""

import io
from dataclasses import replace

import pytest
import torch

from bench.engine.plan import Kind
from bench.measure.gradients.moments import GROUPS, Draw, Moments
from bench.measure.gradients.verdict import step_parts, term_parts

DIM = 6


def draw(seed: int, exact: bool = True) -> Draw:
    """A random gradient of three parts; the exact one is another random vector."""
    rng = torch.Generator().manual_seed(seed)
    parts = {
        (Kind.HO, 0): 1 + torch.randn(DIM, generator=rng),
        (Kind.HO, 1): torch.randn(DIM, generator=rng),
        (Kind.FO, 2): 2 + 0.1 * torch.randn(DIM, generator=rng),
    }
    return Draw(
        gradient=torch.stack(list(parts.values())).sum(0),
        parts=parts,
        exact={i: 1 + 0.1 * torch.randn(DIM, generator=rng) for i in range(3)} if exact else None,
        deterministic=False,
        occupancy=torch.ones(3, 3),
        plain=True,
        seconds=1.0 + seed,
        forward=10,
        backward=5,
        reward=0.5,
    )


def filled(count: int) -> Moments:
    """Sums over so many draws."""
    moments = Moments(DIM, 3)
    for seed in range(count):
        moments.add(draw(seed))
    return moments


def test_sums_that_went_through_a_checkpoint_go_on_as_if_nothing_had_been() -> None:
    whole, first = filled(7), filled(4)
    stream = io.BytesIO()
    torch.save(first.payload(), stream)
    stream.seek(0)
    second = Moments.restored(torch.load(stream, weights_only=True))
    for seed in range(4, 7):
        second.add(draw(seed))
    found, expected = io.BytesIO(), io.BytesIO()
    torch.save(second.payload(), found)
    torch.save(whole.payload(), expected)
    assert found.getvalue() == expected.getvalue()


def test_size_does_not_depend_on_the_number_of_draws() -> None:
    sizes = []
    for count in (GROUPS, 5 * GROUPS):
        stream = io.BytesIO()
        torch.save(filled(count).payload(), stream)
        sizes.append(len(stream.getvalue()))
    assert abs(sizes[1] - sizes[0]) < 200


def test_variance_of_a_gradient_is_that_of_its_draws() -> None:
    moments = filled(200)
    gradients = torch.stack([draw(seed).gradient for seed in range(200)]).double()
    assert moments.estimate.spread() == pytest.approx(float(gradients.var(0).sum()), rel=1e-4)


@pytest.mark.slow
def test_steps_and_terms_have_the_mean_without_noise_and_the_variance() -> None:
    moments = filled(400)
    steps = {(p.name, p.step): p for p in step_parts(moments, norm=1.0)}
    assert steps["ho", 0].mean == pytest.approx(DIM**0.5, rel=0.1)
    assert steps["ho", 1].mean < 0.3
    assert steps["ho", 1].variance == pytest.approx(DIM, rel=0.1)
    assert steps["fo", 2].exact == pytest.approx(DIM**0.5, rel=0.02)
    terms = {p.name: p for p in term_parts(moments, norm=1.0)}
    assert terms["ho"].variance == pytest.approx(2 * DIM, rel=0.1)
    assert terms["fo"].mean == pytest.approx(2 * DIM**0.5, rel=0.02)


def test_draws_that_warm_up_are_not_timed() -> None:
    moments = filled(3)
    moments.add(replace(draw(3), seconds=None))
    assert (moments.seconds, moments.timed, moments.draws) == (1.0 + 2.0 + 3.0, 3, 4)
