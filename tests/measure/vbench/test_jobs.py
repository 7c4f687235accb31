"""What a part of the videos and a dimension are as cells."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bench.base.errors import BenchError
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.jobs import ScoreJob, VideosJob
from bench.report.report import write_report
from bench.run.slurm.cluster import Profile
from bench.run.store import CellDir, ResultsDir
from bench.run.work import CellWork, kind_of, work_in
from tests.measure.vbench.requests import planned, score_request, videos_request
from tests.measure.vbench.videos import empty_videos


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "scene-subset2-1of2"),
        ({"subset": None, "parts": 12}, "scene-01of12"),
        ({"dimensions": ("color", "scene"), "per_prompt": 1}, "color+scene-subset2-each1-1of2"),
        ({"dimensions": tuple(DIMENSIONS), "subset": None}, "all-1of2"),
    ],
)
def test_names_say_what_a_part_is_of(tmp_path: Path, changes: dict[str, object], name: str) -> None:
    assert videos_request(tmp_path, **changes).id == name


def test_long_selections_have_short_names_that_differ(tmp_path: Path) -> None:
    names = list(DIMENSIONS)
    first = videos_request(tmp_path, dimensions=tuple(names[:15])).id
    second = videos_request(tmp_path, dimensions=tuple(names[1:])).id
    assert first.startswith("15dimensions-") and len(first) < 40
    assert first != second


def test_parts_divide_the_videos(tmp_path: Path) -> None:
    every = [video for k in (1, 2, 3) for video in videos_request(tmp_path, part=k, parts=3).listed()]
    assert len(every) == len(set(every)) == 10


def test_a_part_is_finished_when_its_videos_are_there(tmp_path: Path) -> None:
    part, other = (
        work_in(planned(videos_request(tmp_path / "videos", part=n), tmp_path / "videos")) for n in (1, 2)
    )
    assert not part.finished()
    assert isinstance(part, VideosJob)
    empty_videos(tmp_path / "videos", *(video.name for video in part.config.listed()))
    assert part.finished()
    assert not other.finished()


def test_settings_come_back_from_the_cell(tmp_path: Path) -> None:
    for request in (
        videos_request(tmp_path / "videos", settings=("model.steps=3",)),
        score_request(tmp_path / "videos"),
    ):
        cell = planned(request, tmp_path / "videos")
        assert work_in(cell).config == request
        assert cell.path.parents[1] == tmp_path / "videos.jobs"
    (cell.path / "config.yaml").write_text("model: {name: tiny}\n")
    assert kind_of(cell) is CellWork  # a cell that trains


WRITTEN = """\
work: vbench generate
threads: 3
videos: /data/videos
model: tiny-video
name: tiny-video
lora: null
settings: [model.steps=3]
dimensions: [scene]
subset: 2
per_prompt: null
seed: 0
batch: 1
fps: null
part: 1
parts: 2
"""


def test_settings_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(WRITTEN)
    found = work_in(CellDir(tmp_path))
    assert isinstance(found, VideosJob)
    assert found.config == videos_request(Path("/data/videos"), settings=("model.steps=3",), threads=3)
    assert list(yaml.safe_load(WRITTEN)) == list(found.config.model_dump())  # and written so


def test_there_is_no_report_of_them(tmp_path: Path) -> None:
    planned(videos_request(tmp_path / "videos"), tmp_path / "videos")
    with pytest.raises(BenchError, match="vbench table"):
        write_report(tmp_path / "videos.jobs", Console())


def test_resources_are_by_model_and_by_dimension_for_one_process(tmp_path: Path) -> None:
    tree = {
        "gres": "gpu:a100:4",
        "nodes": 2,
        "models": {"tiny-video": {"mem": "2GB"}},
        "dimensions": {"motion_smoothness": {"gpus": 3, "gres": None}, "scene": {"mem": "9GB"}},
    }
    profile = Profile.model_validate(tree)
    results = ResultsDir(tmp_path)
    made = VideosJob.of(videos_request(tmp_path), results, profile).resources(profile)
    scored = ScoreJob.of(score_request(tmp_path), results, profile).resources(profile)
    assert (made.mem, made.gres, made.nodes, made.processes_per_node) == (2048, "gpu:a100:1", 1, 1)
    assert (scored.mem, scored.gpus, scored.gres) == (None, 1, None)
