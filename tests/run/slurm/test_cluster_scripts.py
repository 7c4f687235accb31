import subprocess
from pathlib import Path

from tests.run.slurm.conftest import SCRIPTS


def test_a_second_start_leaves_a_running_cluster_as_it_is(cluster: Path) -> None:
    controller = (cluster / "run" / "slurmctld.pid").read_text()
    again = subprocess.run(["bash", SCRIPTS / "start.sh"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"already running in {cluster}" in again.stderr
    assert (cluster / "run" / "slurmctld.pid").read_text() == controller


def test_the_cluster_has_partitions_without_with_low_and_with_high_priority(cluster: Path) -> None:
    command = ["sinfo", "--noheader", "--format=%R %D %M"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sorted(shown.splitlines()) == ["high 2 OFF", "low 2 REQUEUE", "main 2 OFF"]
