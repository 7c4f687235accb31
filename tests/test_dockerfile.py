"""The Dockerfile, as far as it can be checked without a builder."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_linter_finds_nothing_in_it() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_installs_the_torch_that_the_makefile_does() -> None:
    (makefile,) = re.findall(r"^TORCH \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (dockerfile,) = re.findall(r"^ARG TORCH=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert dockerfile == makefile


def test_everything_that_the_package_is_made_of_is_in_the_context() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    needed = set(re.findall(r'= "(configs|results|slurm)"', (ROOT / "pyproject.toml").read_text()))
    assert needed - {"results"} | {"bench", "methods", "rewards", "results/paper"} <= kept
    assert all((ROOT / name).exists() for name in kept)
