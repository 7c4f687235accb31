"""Running `python -m bench gradients` in tests, on the plugin's model."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.base.files import read_rows
from bench.cli import main
from bench.experiment.request import Options, build
from bench.measure.gradients import plan
from bench.measure.gradients.store import FOLDER, ProbeDir
from bench.measure.gradients.work import ProbeWork
from bench.measure.gradients.worker import run_probe
from bench.run import launch, process
from tests.support.running import DOTS, command

UNREPEATABLE = ("seconds", "timed", "peak_memory", "idle_memory")
PROMPTS = '{"prompt": "one", "split": "train"}\n{"prompt": "fifth", "split": "train"}\n'
PROMPTS += '{"prompt": "other", "split": "eval"}\n'


def two_prompts(directory: Path) -> Path:
    """A file with two prompts to train on, so that statistics per prompt come into play at once."""
    path = directory / "prompts.jsonl"
    path.write_text(PROMPTS)
    return path


def arguments(out: Path, *more: object) -> list[str]:
    """`gradients` on the test model."""
    return [str(a) for a in ("gradients", "--model", DOTS, "--out", out, *more)]


def gradients(out: Path, *more: object) -> list[str]:
    """The same as the command line of a process."""
    return command(*arguments(out, *more))


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """`python -m bench …` in this process: its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code


def planned(
    out: Path,
    *settings: str,
    methods: str = "truncated_bp",
    places: Sequence[str] = ("init",),
    prompts: Path | None = None,
    draws: int | None = None,
) -> plan.PlannedProbes:
    """Plan profiles on the test model in this process (fixture `plugin`)."""
    text = None if prompts is None else str(prompts)
    options = Options(methods=methods, model=str(DOTS), prompts=text, seeds="0", settings=settings, out=out)
    return plan.plan(build(options), places, plan.Limits(None, draws, None), None)


def drawn(out: Path, *settings: str, draws: int, **options: Any) -> list[process.Exit]:
    """Measure so many draws in this process, one method after the other; how each ended."""
    return measured(planned(out, *settings, draws=draws, **options), draws)


def measured(found: plan.PlannedProbes, draws: int) -> list[process.Exit]:
    """The same for any plan."""
    ready, busy = launch.prepare(plan.unfinished(found, force=False), force=False)
    assert not busy
    return [run_probe(ProbeDir(work.directory.path), None, draws, None) for work in ready]


def in_this_process(
    todo: list[ProbeWork], jobs: int, way: Callable[..., process.HowToRun], *others: object
) -> tuple[list[process.Outcome], bool]:
    """In place of `launch.run`: no processes."""
    outcomes = []
    for n, work in enumerate(todo):
        extra = way(len(todo) - n, []).extra
        run_probe(ProbeDir(work.directory.path), None, int(extra[extra.index("--draws") + 1]), None)
        outcomes.append(process.Outcome(work, work.directory.status()))
    return outcomes, False


def probe(out: Path, prefix: str) -> ProbeDir:
    """The only profile whose id starts so."""
    (found,) = (out / FOLDER).glob(f"{prefix}-*")
    return ProbeDir(found)


def sums(directory: ProbeDir) -> Any:
    """Everything a profile measured, but times and memory, and what its method has learnt."""
    saved, messages = directory.restore()
    assert saved is not None, messages
    kept = {k: v for k, v in saved.moments.payload().items() if k not in UNREPEATABLE}
    rows = [{k: v for k, v in row.items() if k != "drawing"} for row in read_rows(directory.draws)]
    return _plain(kept), _plain(saved.method), rows


def _plain(value: Any) -> Any:
    """Tensors as bytes, which == compares bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value


def copied(directory: ProbeDir, to: Path) -> ProbeDir:
    """A profile that was planned and not begun, elsewhere."""
    to.mkdir(parents=True)
    shutil.copy(directory.path / "config.yaml", to)
    return ProbeDir(to)
