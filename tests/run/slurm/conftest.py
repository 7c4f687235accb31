"""A real SLURM for the tests that ask for the fixture `cluster`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.slurm.fakes import SBATCH, Programs
from tests.support.running import ROOT

VARIABLE = "BENCH_TEST_SLURM"
SCRIPTS = ROOT / "slurm" / "cluster"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of a SLURM of two nodes, which every command finds by SLURM_CONF.

    It is left running, as another worker may still use it: `slurm/cluster/stop.sh` ends it.
    """
    if os.environ.get(VARIABLE) != "1":
        pytest.skip(f"needs a real SLURM: {VARIABLE}=1 make test, as root, installs one and starts it")
    started = subprocess.run(
        ["bash", SCRIPTS / "start.sh"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    folder = Path(os.environ.get("BENCH_SLURM_DIR", "/tmp/bench-slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield folder


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A SLURM that takes every job and lets it wait."""
    found = Programs(tmp_path, monkeypatch)
    found.script("sbatch", SBATCH.format(folder=found.folder))
    found.say("srun")
    found.say("scontrol", "MaxArraySize = 1001\n")
    found.queue(*(f"{job}_{n}|PENDING||Priority|N/A" for job in (77, 78, 79) for n in range(9)))
    return found
