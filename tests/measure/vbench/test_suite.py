"""The dimensions, and the videos that VBench's suite asks for."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.measure.vbench import dimensions, resolve, suite
from bench.measure.vbench.dimensions import DIMENSIONS, chosen


def package() -> Path:
    """Where VBench is installed, found without importing it."""
    found = find_spec("vbench")
    if found is None or found.origin is None:
        pytest.skip("`make scorers`")
    return Path(found.origin).parent


def test_there_are_sixteen_dimensions_as_vbench_names_them() -> None:
    assert len(DIMENSIONS) == 16
    assert len(dimensions.QUALITY) == 7
    assert all((package() / f"{name}.py").is_file() for name in DIMENSIONS)


def test_every_weight_file_is_one_that_vbench_looks_for() -> None:
    """Its name, and the last part of its address, stand in VBench's source."""
    source = "".join(p.read_text(encoding="utf-8") for p in sorted(package().rglob("*.py")))
    for file in {file for d in DIMENSIONS.values() for file in d.files}:
        if file.path.endswith("hubconf.py"):  # VBench clones that repository
            assert file.path.rpartition("/")[0] in source
            continue
        assert Path(file.path).name in source
        assert file.url.rpartition("/")[2] in source


def test_the_suite_is_the_one_in_vbench() -> None:
    assert len(suite.full_info()) == 946
    assert len(suite.distinct()) == 944
    theirs = package() / "VBench_full_info.json"
    assert json.loads(theirs.read_text(encoding="utf-8")) == list(suite.full_info())


def test_all_videos_of_the_suite_are_6220() -> None:
    """944 prompts: 75 of flickering with 25 videos, the others with 5."""
    found = suite.videos(chosen(["all"]))
    assert len(found) == 75 * 25 + 869 * 5
    assert len({video.name for video in found}) == len(found)
    assert all(len(video.name.encode()) < 250 and "/" not in video.name for video in found)


def test_a_smaller_subset_is_part_of_a_larger_one() -> None:
    small, large = ({v.name for v in suite.videos(chosen([]), n)} for n in (2, 5))
    assert small < large
    assert {v.name for v in suite.videos(chosen([]), 2)} == small


def test_dimensions_with_the_same_prompts_choose_the_same() -> None:
    found = [suite.prompts_of(DIMENSIONS[n], 4) for n in ("aesthetic_quality", "imaging_quality")]
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_shards_share_out_all_videos() -> None:
    found = suite.videos(chosen(["scene"]), 3)
    requests = [
        resolve.request(chosen(["scene"]), "tiny-video", subset=3, shard=f"{k}/4") for k in (1, 2, 3, 4)
    ]
    parts = [request.listed() for request in requests]
    assert sorted((v for part in parts for v in part), key=lambda v: (v.place, v.number)) == found
    assert resolve.request(chosen(["scene"]), "tiny-video", subset=3).listed() == found


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="expected K/N"):
        suite.shard(text)


def test_fewer_videos_of_each_prompt() -> None:
    assert len(suite.videos(chosen(["temporal_flickering", "scene"]), 1, 2)) == 4


def test_names_may_be_written_as_people_write_them() -> None:
    found = chosen(["Subject Consistency,human-action", "scene"])
    assert [d.name for d in found] == ["subject_consistency", "human_action", "scene"]


def test_an_unknown_dimension_is_refused_with_a_hint() -> None:
    with pytest.raises(BenchError, match="Did you mean 'motion_smoothness'"):
        chosen(["motion_smoothnes"])


def test_custom_videos_have_ten_dimensions() -> None:
    assert len(chosen([], custom=True)) == 10
    with pytest.raises(BenchError, match="scene, color can only be scored on VBench's own prompts"):
        chosen(["scene,color,human_action"], custom=True)
