"""What the scorer makes of VBench's results, and what it counts behind VBench's back."""

import glob
import json
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.measure.vbench import scorer
from bench.measure.vbench.dimensions import DIMENSIONS, GRIT, VICLIP
from bench.measure.vbench.scorer import Missing, Watch, check_packages, checked
from rewards.shared import compat

REQUEST = {"dimension": "scene", "source": "/videos", "count": 2}
ROWS = [{"video_path": f"/videos/a-{n}.mp4", "video_results": 0.5} for n in (0, 1)]


def outcome(results: list[Any], *, watch: Watch | None = None, **changes: Any) -> dict[str, Any]:
    rows = [dict(row) for row in results[1]]
    return checked({**REQUEST, **changes}, [results[0], rows], {}, watch)


def test_results_name_the_videos_where_they_lie() -> None:
    found = outcome([0.5, ROWS])
    assert (found["state"], found["score"], found["scored"]) == ("done", 0.5, 2)
    assert [row["video_path"] for row in found["results"][1]] == ["/videos/a-0.mp4", "/videos/a-1.mp4"]


def test_static_copies_are_traced_back() -> None:
    copies = {"/videos/a-0.mp4": "/links/a-7.mp4"}
    found = checked(dict(REQUEST), [0.5, [dict(ROWS[0])]], copies, None)
    assert found["results"][1][0]["video_path"] == "/videos/a-7.mp4"


def test_the_static_filter_finds_videos_whatever_their_directory_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def static_filter(arguments: Namespace) -> None:
        """Looks for videos as VBench's does, and keeps all."""
        paths = sorted(glob.glob(f"{arguments.videos_path}/*.mp4"))  # noqa: PTH207
        place = Path(arguments.result_path)
        place.mkdir()
        (place / arguments.store_name).write_text(json.dumps({"a": {"static_path": paths}}))

    monkeypatch.setattr(scorer, "load", lambda *_: SimpleNamespace(static_filter=static_filter))
    work = tmp_path / "lr=[1e-4] *?"
    (work / "videos").mkdir(parents=True)
    (work / "videos" / "a-0.mp4").touch()
    request = {"root": None, "work": str(work), "videos": str(work / "videos"), "raft": "raft.pth"}
    copy = str(work / "static" / "filtered_videos" / "a-0.mp4")
    assert scorer.keep_static(request, "cpu") == {copy: str(work / "videos" / "a-0.mp4")}


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_none(score: float) -> None:
    assert outcome([score, ROWS])["state"] == "failed"


def test_no_video_scored_is_a_failure() -> None:
    assert "scored no video" in outcome([0.0, []])["message"]


def test_videos_left_out_are_a_failure_but_for_color() -> None:
    """VBench says nothing of the colour of an object that it did not find."""
    assert "left out 1 of 2" in outcome([0.5, ROWS[:1]])["message"]
    assert outcome([0.5, ROWS[:1]], dimension="color")["state"] == "done"


def test_a_prompt_that_the_suite_lists_twice_is_scored_twice_and_counts_once() -> None:
    assert outcome([0.5, [*ROWS, *ROWS]])["scored"] == 2


def test_a_watched_methods_errors_are_counted_and_raised() -> None:
    class Detector:
        def see(self, frame: int) -> int:
            if frame < 0:
                raise ValueError("dark")
            return frame

    watch = Watch(Detector, "see")
    assert Detector().see(3) == 3
    with pytest.raises(ValueError, match="dark"):
        Detector().see(-1)
    assert (watch.calls, watch.errors) == (2, ["ValueError: dark"])
    assert "failed on 1 of 2 frames" in outcome([0.0, ROWS], watch=watch)["message"]


def test_packages_that_are_absent_or_too_new() -> None:
    with pytest.raises(Missing, match="no_such_package"):
        check_packages(["no_such_package"], {})
    try:
        check_packages([], {"pytest": "1.0"})
    except Missing as error:
        assert "VBench needs 1.0 or older" in str(error) or "not installed: vbench" in str(error)
    else:
        pytest.fail("pytest is newer than 1.0")


@pytest.mark.slow
def test_dimensions_import_beside_modern_packages() -> None:
    """Those that need an environment of their own are left out, and ViCLIP's, which fetch when imported."""
    if find_spec("vbench") is None:
        pytest.skip("`make scorers`")
    for name, dimension in DIMENSIONS.items():
        if not (dimension.limits or dimension.files == VICLIP or set(dimension.packages) & set(GRIT)):
            assert hasattr(compat.vbench(name), f"compute_{name}")
    assert "numpy.lib.function_base" not in sys.modules or find_spec("numpy.lib.function_base") is not None
