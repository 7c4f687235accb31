"""`train.deterministic`: what it switches on for a GPU, and that a CPU gives the same bits with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.base.errors import BenchError
from bench.engine.plan import Kind, Plan, Segment
from bench.experiment.choices import load_reward
from bench.experiment.settings import Choice, TrainConfig
from bench.models.config import ModelConfig
from bench.run import load
from bench.run.load import CUBLAS, load_chain, repeat_exactly, start
from tests.experiment.test_identity import ids
from tests.support.running import cell, numbers, train_dots
from tests.support.toys import batch_of, engine_of, fill, gradient

CPU = torch.device("cpu")
PLAN = Plan((Segment(Kind.ZO, 0, 1), Segment(Kind.HO, 1, 2), Segment(Kind.FO, 2, 3)), (0, 1, 0))


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is left as it was."""
    monkeypatch.delenv(CUBLAS, raising=False)
    threads = torch.get_num_threads()
    yield
    os.environ.pop(CUBLAS, None)
    repeat_exactly(False)
    torch.set_num_threads(threads)


def test_it_switches_on_what_a_gpu_needs_and_off_again() -> None:
    repeat_exactly(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()  # else attention would not be
    assert os.environ[CUBLAS] == ":4096:8"
    assert torch.backends.cudnn.deterministic and not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
    repeat_exactly(False)
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_float32_is_not_rounded_to_tensorfloat_32() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    start(1)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("gpu", [True, False])
def test_a_process_asks_for_it_before_cuda_starts_and_only_on_a_gpu(
    gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[str | None]()

    def kind() -> str:
        """Looks at what the GPUs can do, which starts CUDA."""
        seen.append(os.environ.get(CUBLAS))
        return "cpu"

    monkeypatch.setattr(load.devices, "kind", kind)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    start(1, deterministic=True)
    start(1)
    assert seen[0] == (":4096:8" if gpu else None)
    assert not torch.are_deterministic_algorithms_enabled()  # the second cell did not ask for it


def test_a_process_in_which_cuda_has_started_without_it_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(BenchError, match="leave out --in-process, or set CUBLAS_WORKSPACE_CONFIG=:4096:8"):
        repeat_exactly(True)
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv(CUBLAS, ":16:8")
    repeat_exactly(True)
    assert os.environ[CUBLAS] == ":16:8"  # the user's own


@pytest.mark.slow
def test_strict_mode_refuses_nothing_of_the_embedded_model_and_changes_no_bit() -> None:
    found = []
    for wanted in (False, True):
        repeat_exactly(wanted)
        chain = load_chain(ModelConfig(source="embedded:sd", steps=3, guidance=1.0), CPU)
        fill(chain, 0.05)
        engine = engine_of(chain, load_reward(Choice(name="clip", config={}), CPU))
        engine.gradient(engine.rollout([PLAN] * 2, batch_of(2)), torch.tensor([1.0, -2.0]))
        found.append(gradient(chain))
    assert torch.equal(*found)


@pytest.mark.slow
def test_a_cell_on_a_cpu_has_the_same_numbers_with_it(tmp_path: Path, plugin: None) -> None:
    train_dots(tmp_path / "plain")
    train_dots(tmp_path / "same", "train.deterministic=true")
    assert numbers(cell(tmp_path / "plain", "push")) == numbers(cell(tmp_path / "same", "push"))


def test_it_is_part_of_what_a_cell_is_and_reaches_methods_that_train_nothing() -> None:
    plain, asked = ids(methods="rlr"), ids(methods="rlr", settings=["train.deterministic=true"])
    assert plain[0] == asked[0] and plain[1] != asked[1]
    assert ids(methods="rlr", settings=["train.deterministic=false"]) == plain
    assert TrainConfig(deterministic=True).untrained().deterministic
