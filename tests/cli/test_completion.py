"""What a shell offers, asked as a shell asks, and without importing what computes."""

import os
import shutil
import subprocess
import sys

import pytest

from bench.base import registry
from bench.base.layers import shipped
from bench.cli import completing
from tests.cli.test_light_commands import COMMAND, light
from tests.support.running import ROOT, environment, here

COMPLETE = f"import sys; sys.argv[0] = 'bench'\n{COMMAND}"


def offered(line: str) -> list[str]:
    """What bash gets for the last word of a line."""
    words = line.split(" ")
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = [sys.executable, "-c", COMPLETE]
    done = subprocess.run(program, env=environment() | asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("bench run --methods ddp", {"ddpo"}),
        ("bench run --methods rlr,ddp", {"rlr,ddpo"}),
        ("bench run --config tabl", {"table2", "table3", "table4", "table5", "table7", "table8", "table9"}),
        ("bench tune --workload ", set(shipped("workloads"))),
        ("bench describe sam", {"sampler"}),
        ("bench run --only", {"--only-failed"}),
    ],
)
def test_bash_is_offered_names(line: str, found: set[str]) -> None:
    assert set(offered(line)) == found


@pytest.mark.slow
def test_completing_imports_nothing_that_computes() -> None:
    line = {"COMP_WORDS": "bench run --methods ddp", "COMP_CWORD": "3"}
    light(COMPLETE, _BENCH_COMPLETE="complete_bash", **line)


def test_a_name_is_offered_once_in_a_list() -> None:
    rest = completing.methods("ddpo,")
    assert "ddpo,ddpo" not in rest and len(rest) == len(registry.entries("method")) - 1
    assert completing.models("nothing like it") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_is_one_that_its_shell_can_read(shell: str) -> None:
    done = here("completion", shell)
    assert done.returncode == 0 and "_BENCH_COMPLETE" in done.stdout
    if shutil.which(shell):
        read = subprocess.run([shell, "-n"], input=done.stdout, text=True, env=os.environ)
        assert read.returncode == 0


def test_another_shell_is_a_mistake() -> None:
    assert here("completion", "tcsh").returncode == 2
