"""Two processes share an evaluation, and each has the rows, pictures and features of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from bench.base.errors import BenchError
from bench.engine.world import Interrupted, World
from bench.run.evaluate import Evaluation, evaluate
from tests.engine.test_world import free_port
from tests.run.test_evaluate import PROMPTS, Brightness, Embedding, Pictures
from tests.support.parallel_worker import worker

BATCHES = (1, 4, 7, 100, "auto")  # of 15 pictures


class Broken(Brightness):
    """Gives no number for pictures of one prompt, which is in the second process's share."""

    def score(self, media: Any, prompts: Any) -> Any:
        return torch.tensor([torch.nan if prompt == PROMPTS[1] else 1.0 for prompt in prompts])


def looked(world: World, batch: Any, reward: Brightness) -> Evaluation:
    return evaluate(
        Pictures(), {"r": reward, "features": Embedding()}, PROMPTS, seed=3, batch=batch, images_per_prompt=3,
        keep=4, world=world,
    )  # fmt: skip


def every(world: World) -> dict[Any, Any]:
    """Plain values, as torch.load wants them; and how many pictures this process has scored."""
    found: dict[Any, Any] = {}
    for batch in BATCHES:
        reward = Brightness()
        result = looked(world, batch, reward)
        count = sum(map(len, reward.calls))
        found[batch] = (result.rows, result.images, torch.from_numpy(result.features.values), count)
    try:
        looked(world, 3, Broken())
    except BenchError as error:
        found["error"] = str(error)
    world.stop = lambda: 2 * (world.rank == 1)
    try:
        looked(world, 3, Brightness())
    except Interrupted as interrupted:
        found["left"] = interrupted.reason
    world.stop = lambda: 0
    return found


@pytest.mark.slow
def test_two_processes_have_what_one_has_and_each_does_a_part(tmp_path: Path) -> None:
    multiprocessing.spawn(worker, args=(free_port(), str(tmp_path), every), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = every(World())
    for batch in BATCHES:
        rows, images, features, count = alone[batch]
        for found in (first[batch], second[batch]):
            if batch == "auto":  # then batches differ, and so do last digits
                torch.testing.assert_close(found[2], features)
                assert [row["prompt"] for row in found[0]] == [row["prompt"] for row in rows]
                continue
            assert found[0] == rows
            assert torch.equal(found[1], images) and torch.equal(found[2], features)
        assert first[batch][3] + second[batch][3] == count == 15
    assert (first[4][3], second[4][3]) == (8, 7)
    assert first["auto"][3] == 8 and second[100][3] == 0
    assert first["error"] == second["error"] == alone["error"]
    assert "not finite" in alone["error"]
    assert first["left"] == second["left"] == 2 and "left" not in alone
