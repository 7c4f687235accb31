"""Results directories joined into one, whatever comes between."""

import errno
import json
import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.base.errors import BenchError
from bench.base.files import read_rows, write_rows
from bench.base.layers import read_yaml
from bench.report.load import load
from bench.report.page import requests
from bench.run import claims, merge
from bench.run.store import CellDir, ResultsDir, WorkState
from tests.report import fake, fake_gradients
from tests.support.running import cell, here, numbers, run_dots, train_dots

pytestmark = pytest.mark.slow


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A seed of a method in each directory, and the base model in both."""
    whole = fake.write(tmp_path / "all", ["vader"], (0, 1), steps=10)
    for seed, name in ((0, "one"), (1, "other")):
        for found in whole.glob("cells/*"):
            if found.name.startswith("base") or f"-s{seed}-" in found.name:
                shutil.copytree(found, tmp_path / name / "cells" / found.name)
        (tmp_path / name / "experiment.yaml").write_text(f"command: bench run --seeds {seed}\ncells: []\n")
    return tmp_path / "one", tmp_path / "other"


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def the(root: Path, pattern: str) -> CellDir:
    """The only cell whose name is like that."""
    (found,) = root.glob(f"cells/{pattern}")
    return CellDir(found)


def test_cells_of_both_lie_in_a_new_directory_and_the_sources_are_as_before(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    (places[0] / "report").mkdir()
    (places[0] / "notes.txt").touch()
    the(places[0], "vader*").path.joinpath("lock").touch()
    before = [tree(place) for place in places]
    found = merge.merge(places, tmp_path / "new" / "c")
    assert (found.cells, found.profiles, found.shared) == (3, 0, 1)
    assert found.left == (places[0] / "notes.txt",)
    assert [tree(place) for place in places] == before
    merged = tree(tmp_path / "new" / "c")
    assert {name for name in merged if not name.startswith("cells/")} == {"experiment.yaml"}
    cells = {name: data for name, data in merged.items() if name.startswith("cells/")}
    assert cells == {n: d for n, d in tree(tmp_path / "all").items() if n.startswith("cells/")}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c"]


def test_the_commands_of_all_are_kept_also_of_a_merged_one(places: tuple[Path, Path], tmp_path: Path) -> None:
    third = fake.write(tmp_path / "third", ["ddpo"], steps=10, pictures=False)
    shutil.rmtree(the(third, "base*").path)
    merge.merge(places, tmp_path / "c")
    merge.merge((tmp_path / "c", third), tmp_path / "d")
    request = read_yaml(tmp_path / "d" / "experiment.yaml")
    assert [one["directory"] for one in request["merged"]] == [str(place) for place in (*places, third)]
    commands = [one["command"] for one in requests(request) if "command" in one]
    assert commands == ["bench run --seeds 0", "bench run --seeds 1"]
    assert request["cells"] == sorted(path.name for path in (tmp_path / "d" / "cells").iterdir())
    assert requests(load(tmp_path / "d").request) == requests(request)


def test_other_numbers_are_refused_by_name_and_nothing_is_written(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    log = the(places[1], "base*").evaluations
    rows = read_rows(log)
    rows[3]["score"] += 0.25
    write_rows(log, rows)
    with pytest.raises(BenchError) as caught:
        merge.merge(places, tmp_path / "new" / "c")
    assert "base-tiny-00000000 has other numbers in " in str(caught.value)
    assert "eval.jsonl, line 4: score is" in str(caught.value) and "move the one away" in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_the_same_numbers_the_cell_that_got_further_is_taken(
    places: tuple[Path, Path], tmp_path: Path, order: tuple[int, int]
) -> None:
    whole = the(places[0], "vader*")
    part = places[1] / "cells" / whole.id
    shutil.copytree(whole.path, part)
    write_rows(part / "metrics.jsonl", read_rows(whole.metrics)[:5])
    (part / "eval.jsonl").write_text("")
    (part / "status.json").write_text('{"state": "preempted", "step": 5}')
    merge.merge([places[n] for n in order], tmp_path / "c")
    assert tree(tmp_path / "c" / "cells" / whole.id) == tree(whole.path)


def test_evaluations_that_only_the_other_copy_has_are_kept(places: tuple[Path, Path], tmp_path: Path) -> None:
    for place, name in zip(places, ("aes", "hpsv2"), strict=True):
        folder = the(place, "base*").path / "evaluations"
        folder.mkdir()
        (folder / f"{name}.jsonl").write_text(f"{name}\n")
    merge.merge(places, tmp_path / "c")
    found = the(tmp_path / "c", "base*").path / "evaluations"
    assert {file.name: file.read_text() for file in found.iterdir()} == {
        "aes.jsonl": "aes\n",
        "hpsv2.jsonl": "hpsv2\n",
    }


def running_elsewhere(found: CellDir) -> None:
    """A status of another machine."""
    status = {"state": "running", "step": 5, "host": "node7", "pid": 12}
    (found.path / "status.json").write_text(json.dumps(status))


def claimed(found: CellDir) -> None:
    """This process is going to run it."""
    assert claims.take(found, claims.of_this_process(), lambda *_: True) is None


def submitted(found: CellDir) -> None:
    """A SLURM submission is going to."""
    assert claims.take(found, claims.of_this_process("sweep-1"), lambda *_: True) is None


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (running_elsewhere, "is running, process 12 on node7: wait until it has ended"),
        (claimed, f"process {os.getpid()} on {socket.gethostname()} runs it"),
        (submitted, "the SLURM submission sweep-1 runs it or will"),
    ],
    ids=[
        "running elsewhere",
        "claimed",
        "submitted",
    ],  # a process's number in an id is another one in every worker
)
def test_what_runs_is_refused_by_name(
    places: tuple[Path, Path], tmp_path: Path, state: Callable[[CellDir], None], said: str
) -> None:
    found = the(places[1], "vader*")
    state(found)
    with pytest.raises(BenchError) as caught:
        merge.merge(places, tmp_path / "c")
    assert f"{found.path}: " in str(caught.value) and said in str(caught.value)
    assert not (tmp_path / "c").exists()


def test_what_another_process_writes_is_refused_and_what_was_killed_here_is_not(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    found = the(places[1], "vader*")
    found.write_status(WorkState.RUNNING, 5)
    with found.locked(), pytest.raises(BenchError, match="another process writes it"):
        merge.merge(places, tmp_path / "c")
    merge.merge(places, tmp_path / "c")
    assert the(tmp_path / "c", found.id).status().state is WorkState.RUNNING


def killed_after(files: int, places: tuple[Path, Path], out: Path) -> None:
    """In a process of its own: it ends at once, as by a kill."""
    copy, left = shutil.copy2, iter(range(files))

    def until(file: Any, target: Any) -> Any:
        if next(left, None) is None:
            os._exit(9)
        return copy(file, target)

    shutil.copy2 = until  # pyright: ignore[reportAttributeAccessIssue]
    merge.merge(places, out)


@pytest.mark.parametrize("files", [0, 12])
def test_a_killed_merge_leaves_nothing_in_its_place_and_the_next_one_is_whole(
    places: tuple[Path, Path], tmp_path: Path, files: int
) -> None:
    out = tmp_path / "new" / "c"
    process = multiprocessing.get_context("fork").Process(target=killed_after, args=(files, places, out))
    process.start()
    process.join()
    assert process.exitcode == 9 and not out.exists()
    assert len(tree(out.parent / ".c.merging")) == files
    merge.merge(places, out)
    assert [path.name for path in out.parent.iterdir()] == ["c"] and len(ResultsDir(out).cells()) == 3


def test_a_full_disk_leaves_nothing(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merge.shutil, "copy2", full)
    with pytest.raises(BenchError, match=r"cannot merge into .*No space left on device.*Nothing was merged"):
        merge.merge(places, tmp_path / "new" / "c")
    assert list((tmp_path / "new").iterdir()) == []


def test_links_are_of_files_that_are_never_written_again(places: tuple[Path, Path], tmp_path: Path) -> None:
    merge.merge(places, tmp_path / "c", link=True)
    linked = {
        path.relative_to(tmp_path / "c").parts[2]
        for path in (tmp_path / "c").rglob("*")
        if path.is_file() and path.stat().st_nlink > 1
    }
    assert linked == {"features", "samples"}


def test_profiles_are_merged_in_the_same_way(tmp_path: Path) -> None:
    names = list(fake_gradients.FAKES)
    one, other = (
        fake_gradients.write(tmp_path / place, {name: fake_gradients.FAKES[name] for name in some})
        for place, some in (("a", names[:2]), ("b", names[1:]))
    )
    found = merge.merge((one, other), tmp_path / "c")
    assert (found.cells, found.profiles, found.shared) == (0, 3, 1)
    merged = tree(tmp_path / "c" / "gradients")
    assert merged == tree(other / "gradients") | tree(one / "gradients")


def test_mistakes_are_one_message_with_exit_code_2(places: tuple[Path, Path], tmp_path: Path) -> None:
    for words, said in (
        ((places[0], "--out", tmp_path / "c"), "two results directories or more"),
        ((places[0], places[0], "--out", tmp_path / "c"), "each of them named once"),
        ((*places, "--out", places[0]), f"--out {places[0]} exists"),
        ((places[0], tmp_path, "--out", tmp_path / "c"), f"{tmp_path}: no results directory"),
    ):
        done = here("merge", *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    done = here("merge", *places, "--out", tmp_path / "c")
    assert done.returncode == 0 and "3 cells, 1 of them in several" in " ".join(done.stdout.split())


def test_a_merged_directory_is_complete_to_the_command_that_asks_for_all_of_it(
    tmp_path: Path, plugin: None
) -> None:
    for seed in ("0", "1"):
        train_dots(tmp_path / seed, seeds=seed)
    merge.merge((tmp_path / "0", tmp_path / "1"), tmp_path / "c")
    done = run_dots(tmp_path / "c", "--seeds", "0,1")
    assert done.returncode == 0 and "nothing to run" in done.stdout
    for seed in ("0", "1"):
        theirs = cell(tmp_path / seed, "push")
        assert numbers(cell(tmp_path / "c", theirs.id)) == numbers(theirs)
