"""What the tracker counts, on tensors whose sizes are known."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.measure.cost.ledger import highest, most_offloaded, nothing, points
from bench.measure.cost.tracker import Tracker

FLOAT = 4


def peak(tracker: Tracker) -> int:
    return highest(points(tracker.log, nothing(), 1000)).device


def components(tracker: Tracker) -> dict[str, int]:
    found = highest(points(tracker.log, nothing(), 1000)).components()
    return {name: size for name, size in found.items() if size}


def test_a_storage_counts_once_however_many_views_it_has_and_until_the_last_is_gone() -> None:
    with Tracker() as tracker:
        x = torch.zeros(100)
        view = x[10:20].view(2, 5)
        del x
        y = torch.zeros(30)
        assert peak(tracker) == 130 * FLOAT
        del view
        z = torch.zeros(50)
        assert points(tracker.log, nothing(), 1000)[-1].device == 80 * FLOAT
        del y, z
    assert peak(tracker) == 130 * FLOAT
    assert points(tracker.log, nothing(), 1000)[-1].device == 0


def test_what_a_network_leaves_for_its_backward_is_an_activation_and_the_rest_temporary() -> None:
    x = torch.ones(10, requires_grad=True)
    tracker = Tracker()
    tracker.mark([x], "latents")
    with tracker:
        with tracker.call("network"):
            y = (x * 2).exp().sin()  # exp keeps its result, sin its input: the same 10 numbers; x * 2 goes
        y.sum().backward()
    found = components(tracker)
    assert found["latents"] == 10 * FLOAT
    assert found["activations network"] == 20 * FLOAT  # exp's result and sin's, which y names
    with torch.no_grad(), Tracker() as quiet, quiet.call("network"):
        z = (x * 2).exp()
        del z
    assert components(quiet) == {"temporaries": 20 * FLOAT}


def test_activations_that_checkpointing_makes_again_belong_to_their_network() -> None:
    network = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 8))
    x = torch.ones(4, 8, requires_grad=True)
    tracker = Tracker()
    with tracker.watching({"network": [network]}), tracker:
        tracker.mark(network.parameters(), "weights network")
        with tracker.call("network"):
            out = checkpoint(network, x, use_reentrant=False)
        assert isinstance(out, Tensor)
        (grad,) = torch.autograd.grad(out.sum(), x)
    assert (
        components(tracker)["activations network"] >= 4 * 64 * FLOAT
    )  # tanh's result, which two layers keep
    assert grad.shape == x.shape
    assert not tracker._again


def test_operations_are_counted_forward_and_backward() -> None:
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7)
    with Tracker() as tracker:
        (a @ b).sum().backward()
    assert tracker.flops == 2 * (2 * 3 * 5 * 7)  # the product, and its gradient with respect to a


@pytest.mark.parametrize("heads", [1, 4])
def test_operations_of_attention_are_counted(heads: int) -> None:
    q = torch.ones(2, heads, 6, 8)
    with Tracker() as tracker:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert tracker.flops == 2 * (2 * 2 * heads * 6 * 6 * 8)


def test_copies_that_stand_for_the_host_are_counted_apart() -> None:
    with Tracker() as tracker:
        x = torch.zeros(100)
        tracker.mark([x], "activations network", host=True)
        y = torch.zeros(10)
        del x
    assert peak(tracker) == 10 * FLOAT
    assert most_offloaded(tracker.log) == 100 * FLOAT
    assert len(y) == 10


def test_stages_are_told_innermost_first() -> None:
    from bench.engine.stages import listening, stage

    with listening(tracker := Tracker()), tracker, stage("outer"):
        a = torch.zeros(1)
        with stage("inner"):
            b = torch.zeros(1)
        c = torch.zeros(1)
    assert [entry.stage for entry in tracker.log.entries] == ["outer", "inner", "outer"]
    del a, b, c
