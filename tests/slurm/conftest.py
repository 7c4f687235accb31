"""A real SLURM for the tests that ask for the fixture `cluster`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ROOT

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
