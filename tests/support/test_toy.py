"""The closed-form chain is the formula in its docstring."""

import torch

from bench.engine.chain import State
from tests.support.toy import ToyChain
from tests.support.toys import fill

PROMPTS = ("ab", "abcd", "")
SHIFTS = torch.tensor([0.2, 0.4, 0.0])
ETA = torch.tensor([0.0, 0.5, 1.0])


def start() -> torch.Tensor:
    """x [3, 2]."""
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(0))


def test_transition_is_the_formula() -> None:
    chain = ToyChain(3, 2, noise=0.4)
    x = start()
    out = chain.transition(State(x), 1, chain.condition(PROMPTS), ETA)
    expected = chain.a[1] * x + chain.b[1] * torch.tanh(x @ chain.weight.T + chain.c[1] + SHIFTS[:, None])
    torch.testing.assert_close(out.mean, expected)
    torch.testing.assert_close(out.std.flatten(), ETA * 0.4)


def test_memory_is_the_last_tanh_where_it_is_valid() -> None:
    chain = ToyChain(3, 2, multistep=0.5)
    plain = ToyChain(3, 2)
    cond, x = chain.condition(PROMPTS), start()
    first = chain.transition(chain.prior(x), 0, cond, ETA)
    torch.testing.assert_close(first.mean, plain.transition(State(x), 0, cond, ETA).mean)
    assert first.history is not None
    valid = torch.tensor([True, False, True])
    second = chain.transition(State(first.mean, first.history, valid), 1, cond, ETA)
    assert second.history is not None
    without = plain.transition(State(first.mean), 1, cond, ETA).mean
    difference = 0.5 * (second.history - first.history) * valid[:, None]
    torch.testing.assert_close(second.mean, without + difference)


def test_perturbed_batch_equals_a_loop_over_changed_parameters() -> None:
    chain = ToyChain(3, 2)
    cond, x = chain.condition(PROMPTS), start()
    delta = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with chain.perturbed(delta):
        together = chain.transition(State(x), 2, cond, ETA).mean
    for b in range(3):
        changed = ToyChain(3, 2)
        with torch.no_grad():
            changed.weight.add_(delta[b].reshape(2, 2))
        rows = torch.tensor([b])
        alone = changed.transition(State(x[rows]), 2, cond.select(rows), ETA[rows]).mean
        torch.testing.assert_close(together[rows], alone)
    assert torch.equal(chain.weight, ToyChain(3, 2).weight)


def test_x_path_alone_is_linear_and_without_parameters() -> None:
    chain = ToyChain(3, 2)
    fill(chain, 1.0)
    x = start().requires_grad_()
    out = chain.transition(State(x), 1, chain.condition(PROMPTS), ETA, x_path_only=True).mean
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, chain.a[1].expand(3, 2))


def test_a_detached_input_keeps_the_linear_path_and_the_parameters() -> None:
    chain = ToyChain(3, 2)
    fill(chain, 1.0)
    x = start().requires_grad_()
    out, whole = (
        chain.transition(State(x), 1, chain.condition(PROMPTS), ETA, detach_input=cut).mean
        for cut in (True, False)
    )
    assert torch.equal(out, whole)
    found = torch.autograd.grad(out.sum(), [x, chain.weight])
    torch.testing.assert_close(found[0], chain.a[1].expand(3, 2))
    torch.testing.assert_close(found[1], torch.autograd.grad(whole.sum(), chain.weight)[0])
