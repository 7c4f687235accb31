"""Commands that compute nothing start without the packages that compute: each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiment.request import Options, build
from bench.run import claims, launch
from bench.run.experiment import plan
from tests.support.running import ROOT, environment

pytestmark = pytest.mark.slow

HEAVY = (
    *("torch", "diffusers", "transformers", "peft", "numpy"),
    *("scipy", "pandas", "matplotlib", "PIL", "submitit"),
)
COMMAND = """
import sys
from bench.cli.main import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
"""
SETTINGS = """
import sys
from bench.base import registry
for group in ("method", "reward"):
    for name in registry.own(group):
        registry.load(group, name).Config.model_json_schema()
"""


FUNCTIONS = """
import sys
import bench
for name in bench.__all__:
    getattr(bench, name)
"""


def light(program: str, *arguments: str, **variables: str) -> None:
    """Run a program in a process of its own; fails if it does, or if it imported something heavy."""
    found = f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or None)"
    words = [sys.executable, "-c", f"{program}\n{found}", *arguments]
    done = subprocess.run(words, env=environment() | variables, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_version() -> None:
    light(COMMAND, "--version")


def test_list() -> None:
    light(COMMAND, "list")


@pytest.mark.parametrize(
    "name", ["rlr", "rlr-cv", "doodl", "hpsv2", "jpeg", "motion", "sd14", "race", "train"]
)
def test_describe(name: str) -> None:
    light(COMMAND, "describe", name)


def test_functions_until_they_are_called() -> None:
    light(FUNCTIONS)


def test_settings_of_every_method_and_reward() -> None:
    light(SETTINGS)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--methods", "rlr,ddpo", "--model", "sd14"),
        ("--model", "tiny-video", "--methods", "rlr,doodl", "--reward", "motion"),
        ("--model", "tiny-flow", "--methods", "rlr,ddpo"),
    ],
)
def test_dry_run(arguments: tuple[str, ...], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    cache = str(tmp_path / "no weights")
    light(COMMAND, "run", "--dry-run", "--out", out, *arguments, HF_HUB_CACHE=cache)


def test_status(tmp_path: Path) -> None:
    ready, _ = launch.prepare(
        plan(build(Options(methods="rlr", out=tmp_path)), force=False).todo, force=False
    )
    claims.Lease([work.directory for work in ready]).end()
    light(COMMAND, "status", str(tmp_path))
