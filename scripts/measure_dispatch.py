"""What sending a cell to SLURM costs, from `submit` to its first optimizer step.

    python scripts/measure_dispatch.py --profile local [--times 5]

Sends a sweep of one cell of the embedded model with one step, several times, and reads the clock off the
files that the stages leave: submission.json (cells are claimed), job.json (the job's process is up), env.json
(the cell's process has imported everything), metrics.jsonl (the first step is taken). The same cell in a
process on this machine, by `bench run --jobs 2` (beside the base model's), is the comparison.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

CELL = ("--methods", "truncated_bp", "--model", "tiny", "--steps", "1", "--set", "eval.prompts=1")


def bench(*arguments: object) -> float:
    """Run a command; the time at which it began."""
    began = time.time()
    subprocess.run([sys.executable, "-m", "bench", *map(str, arguments)], check=True, capture_output=True)
    return began


def stages(out: Path, began: float) -> dict[str, float]:
    """Seconds of each stage of the only trained cell."""
    (cell,) = out.glob("cells/truncated_bp*")
    env, first = (cell / "env.json").stat().st_mtime, (cell / "metrics.jsonl").stat().st_mtime
    if not (cell / "job.json").exists():
        return {"command to process ready (imports)": env - began, "load and first step": first - env}
    job = datetime.fromisoformat(json.loads((cell / "job.json").read_text())["started"]).timestamp()
    (sent,) = out.glob("slurm/*/submission.json")
    asked = datetime.fromisoformat(json.loads(sent.read_text())["created"]).timestamp()
    return {
        "command to submission (imports, plan, claims, snapshot)": asked - began,
        "submission to the job's process (sbatch, SLURM, Python)": job - asked,
        "job's process to cell's process ready (imports)": env - job,
        "load and first step": first - env,
    }


def main() -> None:
    """Print medians, least and most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    for title, command in (
        ("SLURM", ("submit", "--profile", asked.profile, "--wait")),
        ("a process here", ("run", "--jobs", 2, "--no-report")),
    ):
        found: dict[str, list[float]] = {}
        for _ in range(asked.times):
            with tempfile.TemporaryDirectory() as folder:
                began = bench(*command, "--out", folder, *CELL)
                for stage, seconds in stages(Path(folder), began).items():
                    found.setdefault(stage, []).append(seconds)
        print(f"{title}, seconds: median (least to most) of {asked.times}")
        for stage, seconds in found.items():
            low, high = min(seconds), max(seconds)
            print(f"  {stage:58s} {statistics.median(seconds):5.1f} ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
