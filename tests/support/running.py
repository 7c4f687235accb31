"""Running `python -m bench` in tests, with the plugin of tests/plugin installed."""

import io
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.base.files import read_rows
from bench.cli import main
from bench.experiment.request import Options, build
from bench.run import claims, launch, process, warm
from bench.run.experiment import plan
from bench.run.store import CellDir, ResultsDir
from bench.run.work import CellWork

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"
DOTS = PLUGIN / "dots.yaml"
UNREPEATABLE = ("seconds", "memory", "graphs_kept")
STREAMS = ("out", "err")
PATIENCE = 1500.0  # seconds after which a process hangs, on any machine
PAUSE = "BENCH_TEST_PAUSE"  # seconds that the plugin's methods wait in each batch, beside their setting


def environment() -> dict[str, str]:
    """The plugin and the checkout on the path, no colours, no network."""
    path = os.pathsep.join((str(PLUGIN), str(ROOT)))
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(*arguments: object) -> list[str]:
    """`python -m bench …`."""
    return [sys.executable, "-m", "bench", *map(str, arguments)]


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end, from a warm start: a process of its own that need not import torch again."""
    words = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, environment()):
        ended = warm.context().Process(target=_as_new, args=(words, place, dict(os.environ)))
        ended.start()
        ended.join(PATIENCE)
        if ended.exitcode is None:
            ended.kill()
            raise subprocess.TimeoutExpired(words, PATIENCE)
        out, err = ((Path(place) / name).read_text() for name in STREAMS)
        return subprocess.CompletedProcess(command(*arguments), ended.exitcode, out, err)


def _as_new(arguments: list[str], place: str, variables: dict[str, str]) -> None:
    """In the copy: print to files."""
    for number, name in enumerate(STREAMS, start=1):
        os.dup2(os.open(Path(place) / name, os.O_WRONLY | os.O_CREAT), number)
    warm.become(arguments, variables)


def run_dots(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`bench run` on the test model with method `push` unless told otherwise, without a report."""
    methods = () if "--methods" in arguments else ("--methods", "push")
    return bench("run", "--no-report", "--model", DOTS, "--out", out, *methods, *arguments)


def plan_dots(
    out: Path, *settings: str, methods: str = "push", steps: int | None = None, seeds: str | None = None
) -> list[CellWork]:
    """Plan cells on the test model in this process (fixture `plugin`); those that have to run, unclaimed."""
    options = Options(methods=methods, model=str(DOTS), steps=steps, seeds=seeds, settings=settings, out=out)
    ready, busy = launch.prepare(plan(build(options), force=False).todo, force=False)
    assert not busy
    claims.Lease([work.directory for work in ready]).end()
    return ready


def train_dots(
    out: Path, *settings: str, methods: str = "push", steps: int | None = None, seeds: str | None = None
) -> list[process.Exit]:
    """Plan and run cells in this process, one after the other; how each ended."""
    from bench.run.cell import run_cell

    todo = plan_dots(out, *settings, methods=methods, steps=steps, seeds=seeds)
    return [run_cell(CellDir(work.directory.path), None) for work in todo]


def cell(out: Path, prefix: str) -> CellDir:
    """The only cell whose id starts so."""
    (found,) = [c for c in ResultsDir(out).cells() if c.id.startswith(prefix)]
    return found


def numbers(directory: CellDir) -> tuple[Any, ...]:
    """Everything a cell measured, but times and memory; the bytes of what it drew, trained and embedded."""
    metrics = [
        {k: v for k, v in row.items() if k not in UNREPEATABLE}
        for log in (directory.metrics, directory.inference)
        for row in read_rows(log)
    ]
    samples = {p.relative_to(directory.path): p.read_bytes() for p in directory.path.glob("samples/*/*.png")}
    lora = {p.name: p.read_bytes() for p in directory.path.glob("lora/*")}
    features = {p.name: p.read_bytes() for p in directory.features.glob("*.npz")}
    return metrics, read_rows(directory.evaluations), samples, lora, features


def status(directory: CellDir) -> dict[str, Any]:
    """status.json."""
    return json.loads((directory.path / "status.json").read_text())


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m bench …` in this process, where its start is not what is tested: imports take seconds."""
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    code: object = 0
    with patch.object(sys, "argv", ["bench", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(["bench", *words], int(str(code or 0)), out.getvalue(), err.getvalue())
