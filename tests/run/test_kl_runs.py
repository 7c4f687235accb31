"""Cells whose objective has a KL term."""

from pathlib import Path

import pytest

from bench.base.files import read_rows
from bench.run.process import Exit
from tests.support.running import cell, numbers, status, train_dots

pytestmark = pytest.mark.slow

SETTINGS = ("train.kl=0.05", "grpo.inner_epochs=2", "train.samples_per_prompt=2", "train.micro_batch=4")


def test_kl_is_on_record_and_a_cell_that_goes_on_ends_in_the_same_numbers(
    tmp_path: Path, plugin: None
) -> None:
    for name, ends in (("whole", (4,)), ("parts", (2, 4))):
        for steps in ends:
            assert train_dots(tmp_path / name, *SETTINGS, methods="grpo", steps=steps)[-1] is Exit.DONE
    whole = cell(tmp_path / "whole", "grpo")
    metrics, _, _, lora, _ = numbers(whole)
    again, _, _, lora_again, _ = numbers(cell(tmp_path / "parts", "grpo"))
    assert metrics == again and lora == lora_again
    rows = read_rows(whole.metrics)
    assert [row["kl"] for row in rows[:2]] == [0, 0]  # a batch of the base model, twice
    assert all(row["kl"] > 0 for row in rows[2:])
    train_dots(tmp_path / "without", *SETTINGS[1:], methods="grpo", steps=1)
    (plain, *_) = read_rows(cell(tmp_path / "without", "grpo").metrics)
    assert plain["kl"] is None
    assert rows[0]["nfe_forward"] == 2 * plain["nfe_forward"]


def test_method_with_a_gradient_of_its_own_is_refused_instead_of_trained_without(
    tmp_path: Path, plugin: None
) -> None:
    assert train_dots(tmp_path, "train.kl=0.05", steps=1)[-1] is Exit.FAILED
    assert "method 'push' makes its gradient without" in status(cell(tmp_path, "push"))["message"]
