from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.experiment import request
from bench.experiment.request import Options
from bench.experiment.resolve import resolve_all
from bench.run.slurm.cluster import Profile, Resources
from bench.run.slurm.submit import Array, arrays
from bench.run.store import CellDir
from bench.run.work import CellWork, Work

BLOCKS = {"methods": {"ddpo": {"mem": "4GB"}, "zo": {"mem": "8GB"}, "base": {"time": "10m"}}}
METHODS = ("rlr", "ddpo", "zo", "base")


@pytest.fixture(scope="module")
def kinds() -> dict[str, CellWork]:
    """A cell of each method, and of the base model."""
    options = Options(methods="rlr,ddpo,zo", model="tiny")
    found = [cell.config for cell in resolve_all(request.build(options).combinations, fetch=False)]
    todo = [CellWork(CellDir(Path(config.label)), config, config.label) for config in found]
    assert {work.id for work in todo} == set(METHODS)
    return {work.id: work for work in todo}


def many(kinds: dict[str, CellWork], names: list[str]) -> list[CellWork]:
    """Cells of these methods, each with a directory of its own."""
    return [replace(kinds[name], directory=CellDir(Path(f"{name}-{n}"))) for n, name in enumerate(names)]


def resources(profile: Profile, work: Work) -> Resources:
    """What a cell asks for."""
    return work.resources(profile)


def ids(found: list[Array]) -> list[list[str]]:
    """The cells of each array."""
    return [[work.id for work in array.todo] for array in found]


def test_cells_that_ask_for_the_same_share_an_array_in_their_order(kinds: dict[str, CellWork]) -> None:
    found = arrays(
        many(kinds, ["rlr", "ddpo", "rlr", "zo", "ddpo"]), Profile.model_validate(BLOCKS), None, 99
    )
    assert ids(found) == [["rlr-0", "rlr-2"], ["ddpo-1", "ddpo-4"], ["zo-3"]]
    assert [array.resources.mem for array in found] == [None, 4096, 8192]
    assert [array.parallel for array in found] == [2, 2, 1]


def test_cells_with_other_numbers_of_threads_do_not_share_an_array(kinds: dict[str, CellWork]) -> None:
    todo = [
        replace(work, config=work.config.model_copy(update={"threads": 1 + n % 2}))
        for n, work in enumerate(many(kinds, ["rlr"] * 4))
    ]
    assert ids(arrays(todo, Profile(), None, 99)) == [["rlr-0", "rlr-2"], ["rlr-1", "rlr-3"]]
    assert len(arrays(todo, Profile(cpus=4), None, 99)) == 1


def test_fewer_at_once_than_arrays_runs_one_array_after_the_other(kinds: dict[str, CellWork]) -> None:
    todo = many(kinds, ["rlr", "ddpo", "zo", "rlr"])
    found = arrays(todo, Profile.model_validate(BLOCKS), 2, 99)
    assert [array.after for array in found] == [False, True, True]
    assert [array.parallel for array in found] == [2, 2, 2]


def test_places_are_dealt_out_by_size(kinds: dict[str, CellWork]) -> None:
    todo = many(kinds, ["rlr"] * 12 + ["ddpo"] * 4)
    assert [a.parallel for a in arrays(todo, Profile.model_validate(BLOCKS), 8, 99)] == [6, 2]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is no fault
@given(
    names=st.lists(st.sampled_from(METHODS), min_size=1, max_size=40),
    cap=st.none() | st.integers(1, 12),
    largest=st.integers(1, 9),
)
def test_every_cell_is_sent_once_and_never_more_at_once_than_asked(
    kinds: dict[str, CellWork], names: list[str], cap: int | None, largest: int
) -> None:
    todo, profile = many(kinds, names), Profile.model_validate(BLOCKS)
    found = arrays(todo, profile, cap, largest)
    assert sorted(cell for array in ids(found) for cell in array) == sorted(work.id for work in todo)
    for array in found:
        assert 1 <= len(array.todo) <= largest
        assert array.parallel >= 1
        assert all(resources(profile, work) == array.resources for work in array.todo)
    if cap is None:
        assert all(array.parallel == len(array.todo) and not array.after for array in found)
    elif any(array.after for array in found):
        assert [array.after for array in found] == [False] + [True] * (len(found) - 1)
        assert all(array.parallel <= cap for array in found)
    else:
        assert sum(array.parallel for array in found) == min(cap, len(todo))
        assert all(array.parallel <= len(array.todo) for array in found)
