"""Two processes give what one gives with the whole batch."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import multiprocessing

from bench.base.errors import BenchError
from bench.engine.world import World
from tests.support.parallel_worker import RUNS, run, worker


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of the two processes, and of one alone."""
    directory = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(worker, args=(free_port(), str(directory)), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    return [*(torch.load(Path(directory) / f"{rank}.pt") for rank in (0, 1)), run(World())]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_gradient_of_one_with_the_whole_batch(
    name: str, found: list[dict[str, Any]]
) -> None:
    first, second, alone = (result[name] for result in found)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[0], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[2], second[2], rtol=0, atol=0)
    torch.testing.assert_close(first[2], alone[2], rtol=1e-4, atol=1e-5)
    for (rewards, norms, *counts), (expected, expected_norms, *expected_counts) in zip(
        first[1], alone[1], strict=True
    ):
        torch.testing.assert_close(rewards, expected)
        assert norms == pytest.approx(expected_norms, rel=1e-4)
        assert counts == expected_counts


@pytest.mark.slow
def test_a_batch_that_one_process_leaves_is_left_by_all_for_its_reason(found: list[dict[str, Any]]) -> None:
    """They neither wait for each other for ever nor disagree about what was finished."""
    first, second, _ = found
    assert first["left"] == second["left"] == [2, 2]


def test_shares_are_contiguous_and_equal_and_an_odd_batch_is_refused() -> None:
    worlds = [World(SimpleNamespace(process_index=r, num_processes=3)) for r in range(3)]  # pyright: ignore[reportArgumentType]
    assert [list(w.share(6)) for w in worlds] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(BenchError, match=r"7 samples does not divide among 3 processes.*prompts_per_step"):
        worlds[0].share(7)


def test_one_process_alone_changes_nothing() -> None:
    values = torch.arange(3.0)
    world = World()
    assert world.is_main
    assert torch.equal(world.gather(values), values)
    assert torch.equal(world.sum(values), values)
