"""DRaFT-LV: the mean of the last step's gradient over several noisings of the same picture."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bench.engine.batch import Report
from methods.draft_lv import DraftLv, DraftLvConfig
from methods.truncated_bp import TruncatedBp, TruncatedBpConfig
from tests.support.toy import ToyChain
from tests.support.toys import batch_of, engine_of, gradient

COUNT = 8


def found(copies: int, steps: int = 4, micro_batch: int = 8) -> tuple[Tensor, Report]:
    """The gradient of one batch."""
    chain, method = ToyChain(steps, 2, noise=0.7), DraftLv(DraftLvConfig(copies=copies), steps)
    report = next(iter(method.updates(engine_of(chain, micro_batch=micro_batch), batch_of(COUNT))))
    return gradient(chain), report


def last_step() -> Tensor:
    """DRaFT-1's gradient of the same batch."""
    chain, method = ToyChain(4, 2, noise=0.7), TruncatedBp(TruncatedBpConfig(k=1), 4)
    next(iter(method.updates(engine_of(chain), batch_of(COUNT))))
    return gradient(chain)


def test_every_copy_and_the_chains_own_last_step_count_alike() -> None:
    """So n + 1 times the mean of n copies is DRaFT-1's gradient and the copies', of which each adds one."""
    sums = [last_step(), *((n + 1) * found(n)[0] for n in (1, 2, 3))]
    added = [after - before for before, after in pairwise(sums)]
    for n, one in enumerate(added):
        assert float(one.norm()) > 0.1 * float(sums[0].norm())
        assert not any(torch.allclose(one, other) for other in added[:n])


def test_copies_gather_around_the_gradient_that_is_expected_of_them() -> None:
    """The variance by noisings falls as 1/n: the mean over 64 is that over 256 within 15 %."""
    few, many = (((n + 1) * found(n)[0] - last_step()) / n for n in (64, 256))
    assert float((few - many).norm()) < 0.15 * float(many.norm())


@pytest.mark.parametrize("steps", [1, 4])
def test_micro_batches_change_nothing_and_evaluations_are_counted(steps: int) -> None:
    whole, report = found(2, steps)
    parts, other = found(2, steps, micro_batch=3)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    assert (report.forward, report.backward, report.again) == (COUNT * (steps + 2), COUNT * 3, COUNT * 3)
    assert other.extra == pytest.approx(report.extra, rel=1e-5)
