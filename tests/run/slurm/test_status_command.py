import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bench.base.files import append_rows
from bench.run.slurm.record import FILE, FOLDER
from bench.run.store import WorkState
from tests.run.slurm.fakes import SUBMISSION, Programs, submitted
from tests.support.running import plan_dots
from tests.support.watched import watched

CELLS = 500
STEPS = 200
NODES = "n1|None"
# of each ten cells: four done, two running, two queued, one that failed before, one that died without a word
KINDS = ("done", "done", "done", "done", "running", "running", "queued", "queued", "failed", "out of memory")
WRITTEN = {
    "done": WorkState.DONE,
    "running": WorkState.RUNNING,
    "queued": WorkState.PENDING,
    "failed": WorkState.FAILED,
    "out of memory": WorkState.RUNNING,
}
WORDS = {
    "running": f"RUNNING|{NODES}",
    "queued": "PENDING||Priority",
    "out of memory": f"OUT_OF_MEMORY|{NODES}",
}


def metrics_row(step: int) -> dict[str, object]:
    """About as long as a real one."""
    return {
        "step": step,
        "seconds": 1.5 * step,
        "reward_mean": 0.3,
        **{f"measure_{n}": n / 7 for n in range(20)},
    }


def big_sweep(out: Path, programs: Programs) -> None:
    """500 cells by copies of one."""
    (_, work) = plan_dots(out, steps=STEPS)
    shutil.rmtree(next((out / "cells").glob("base-*")))
    work.log.write_text("who reads a log from its beginning finds this\n")
    append_rows(work.log, [metrics_row(step) for step in range(1, STEPS)])
    found = submitted(out, [work])
    original = work.directory.path
    for n in range(CELLS):
        kind, copy = KINDS[n % 10], original.with_name(f"push-dots-brightness-s{n}-{n:08x}")
        shutil.copytree(original, copy)
        content = json.loads((copy / "status.json").read_text()) | {"state": WRITTEN[kind], "step": 100}
        (copy / "status.json").write_text(json.dumps(content))
        if kind in ("done", "failed"):
            (copy / "claim.json").unlink()
        if kind == "queued":
            (copy / "metrics.jsonl").unlink()
    shutil.rmtree(original)
    jobs = {f"push-dots-brightness-s{n}-{n:08x}": f"77_{n}" for n in range(CELLS)}
    record = found.model_copy(update={"jobs": jobs, "cells": tuple(jobs)})
    (out / FOLDER / SUBMISSION / FILE).write_text(record.model_dump_json())
    programs.queue(
        *(f"77_{n}|{WORDS[KINDS[n % 10]]}|2020-01-01" for n in range(CELLS) if KINDS[n % 10] in WORDS)
    )


@pytest.mark.slow
def test_status_of_500_cells_opens_five_files_of_each_and_asks_slurm_once(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, programs = tmp_path / "out", Programs(tmp_path, monkeypatch)
    big_sweep(out, programs)
    done, _ = watched(tmp_path / "record.json", "status", out, "--json")  # the first look settles 50 cells
    counts = Counter(one["state"] for one in json.loads(done.stdout))
    assert counts == {"done": 200, "running": 100, "queued": 100, "failed": 50, "out of memory": 50}
    again, record = watched(tmp_path / "record.json", "status", out)
    assert "500 cells: 200 done, 100 running, 100 queued, 50 failed, 50 out of memory" in again.stdout
    assert len(record.inside(out)) <= 5 * CELLS + 5
    assert record.heavy() == set()
    assert record.waits == record.connected == []
    assert len(record.started) == 1 and len(programs.calls("squeue")) == 2


@pytest.mark.slow
def test_status_on_80_columns_is_whole_and_shows_every_cell(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Programs(tmp_path, monkeypatch)
    todo = plan_dots(tmp_path / "out", steps=STEPS, seeds="0,1,2")
    submitted(tmp_path / "out", todo)
    programs.queue(*(f"77_{n}|PENDING||JobArrayTaskLimit|N/A" for n in range(len(todo))))
    done, _ = watched(tmp_path / "record.json", "status", tmp_path / "out", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "4 cells: 4 queued" in lines
    folded = "".join(line.partition(" ")[0] for line in lines[1:])
    for work in todo:
        assert work.id in folded
