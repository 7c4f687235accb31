import gc
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest
import torch

from bench.base import registry
from bench.base.errors import BenchError
from bench.experiment.resolve import Cell
from bench.run import preflight
from tests.support.running import PLUGIN

# A shell that starts the suite in the background makes it ignore Ctrl-C, and what it runs inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of pytest-xdist fill the cores; several threads each would wait for one another, many times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Tests with a real SLURM mostly wait for it: one worker more than cores."""
    return (yield) + (os.environ.get("BENCH_TEST_SLURM") == "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option, not a default for `-m`, which a user's own `-m` would replace."""
    told = "run the tests of published architectures in full size, and no others: minutes and gigabytes each"
    parser.addoption("--full-size", action="store_true", help=told)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests, and in which order."""
    _choose(config, items)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip("needs CUDA: `make gpu-check` on a machine with a GPU"))
    _order(items)


def _choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those in full size with `--full-size`, all others without."""
    wanted = bool(config.getoption("--full-size"))
    chosen, others = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        full_size = item.get_closest_marker("full_size") is not None
        (chosen if full_size is wanted else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


def _order(items: list[pytest.Item]) -> None:
    """The order of files for several workers (`--no-loadscope-reorder`): nothing long is left to the end.

    Files with the most slow tests come first, among them those with a real SLURM, which one worker is to run
    while the others are busy.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def slow(file: Path) -> int:
        return sum(item.get_closest_marker("slow") is not None for item in files[file])

    ordered = sorted(files, key=lambda file: (-slow(file), -len(files[file]), file))
    waiting = [file for file in ordered if any("cluster" in _fixtures(item) for item in files[file])]
    busy = [file for file in ordered if file not in waiting]
    items[:] = [item for file in (*waiting[:1], *busy[:2], *waiting[1:], *busy[2:]) for item in files[file]]


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """What earlier files imported and kept is not searched again: a full collection takes most of a second,
    and every measurement of memory makes one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _environment_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that run in this process leave nothing that they set to other tests, such as BENCH_DEVICE."""
    before = dict(os.environ)
    for name in ("BENCH_DEVICE", "BENCH_TRACK"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in [name for name in os.environ if name not in before]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and rewards are tried out in this process: one of their own would import everything again."""

    def check(cells: Iterable[Cell], call_rewards: bool = True) -> None:
        if found := preflight.try_out(preflight._trials(cells, call_rewards)):
            raise BenchError("\n".join(found))

    monkeypatch.setattr(preflight, "check", check)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of tests/plugin, installed in this process."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
