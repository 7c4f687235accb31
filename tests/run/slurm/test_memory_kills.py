from pathlib import Path

import pytest

from bench.run.slurm import memory_kills


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups."""
    monkeypatch.setattr(memory_kills, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory_kills, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path / "cgroup"


def belongs(cgroup: Path, text: str) -> None:
    """What /proc/self/cgroup says."""
    (cgroup.parent / "membership").write_text(text)


def counted(file: Path, text: str) -> None:
    """A file of the kernel."""
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_kills_are_counted_where_there_is_one_tree(cgroup: Path) -> None:
    belongs(cgroup, "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n")
    place = cgroup / "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
    counted(place / "memory.events", "low 0\nhigh 0\nmax 31\noom 5\noom_kill 3\noom_group_kill 0\n")
    assert memory_kills.kills() == 3


def test_kills_are_counted_where_each_controller_has_a_tree(cgroup: Path) -> None:
    belongs(cgroup, "12:cpu,cpuacct:/slurm/job_7\n9:hugetlb:/\n4:memory:/slurm/uid_0/job_7/step_0\n0::/\n")
    place = cgroup / "memory/slurm/uid_0/job_7/step_0"
    counted(place / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert memory_kills.kills() == 2


@pytest.mark.parametrize("text", ["0::/job_7\n", "3:cpu:/job_7\n", "4:memory:/job_7\n", ""])
def test_without_a_count_there_are_none(cgroup: Path, text: str) -> None:
    belongs(cgroup, text)
    assert memory_kills.kills() == 0


def test_without_control_groups_there_are_none(cgroup: Path) -> None:
    assert memory_kills.kills() == 0


def test_old_kernels_file_without_the_count_is_none(cgroup: Path) -> None:
    belongs(cgroup, "4:memory:/job_7\n")
    counted(cgroup / "memory/job_7/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")
    assert memory_kills.kills() == 0


def test_of_several_logs_the_line_of_slurmstepd_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("step 1\nan oom-kill that the cell talks about\n")
    (tmp_path / "err").write_bytes(
        b"\xff\xfe\n  slurmstepd: error: Detected 1 oom-kill event(s)\nsrun: done\n"
    )
    assert memory_kills.told_in([tmp_path / "out"]) is None
    told = memory_kills.told_in([tmp_path / "out", tmp_path / "err"])
    assert told == "slurmstepd: error: Detected 1 oom-kill event(s)"
