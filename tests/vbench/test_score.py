"""`bench vbench score`: the real vbench package on small videos, and all that can be missing or go wrong."""

import importlib
import json
import os
import subprocess
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.errors import BenchError
from bench.vbench import cells, mp4
from bench.vbench.score import read_status
from rewards import compat
from tests.vbench.test_mp4 import read
from tests.vbench.videos import PROMPT, moving, write_suite

needs_encoder = pytest.mark.skipif(
    not any(find_spec(name) for name in mp4.PACKAGES), reason="pip install -e '.[vbench]'"
)
needs_vbench = pytest.mark.skipif(find_spec("vbench") is None, reason="`make scorers`")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def score(videos: Path, *arguments: str) -> Result:
    given = ["vbench", "score", str(videos), *arguments]
    return CliRunner().invoke(app, given, env={"COLUMNS": "80"}, catch_exceptions=False)


def empty_videos(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"no video")
    return directory


@needs_vbench
@needs_encoder
@pytest.mark.slow
def test_flickering_by_vbench_is_the_mean_absolute_difference_of_frames(tmp_path: Path) -> None:
    videos = write_suite(tmp_path / "videos", {0: 0, 1: 3})
    found = score(videos, "--dimension", "temporal_flickering", "--no-static-filter")
    assert found.exit_code == 0, found.output
    file = tmp_path / "scores" / "temporal_flickering_eval_results.json"
    mean, rows = json.loads(file.read_text())["temporal_flickering"]
    expected = []
    for number in (0, 1):
        frames = read(videos / f"{PROMPT}-{number}.mp4")[0].astype(float)
        expected.append(1 - np.abs(np.diff(frames, axis=0)).mean() / 255)
    assert [row["video_results"] for row in rows] == pytest.approx(expected, abs=1e-6)
    assert mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert rows[0]["video_path"] == str(videos / f"{PROMPT}-0.mp4")
    assert "2 of the suite's 375 videos, without the static filter" in found.output
    assert (
        "already scored" in score(videos, "--dimension", "temporal_flickering", "--no-static-filter").output
    )
    shown = CliRunner().invoke(app, ["vbench", "table", str(tmp_path), "--out", str(tmp_path / "t")])
    assert f"{100 * mean:.2f}*" in shown.output


@needs_vbench
@needs_encoder
@pytest.mark.slow
def test_custom_videos_one_of_which_cannot_be_played(tmp_path: Path) -> None:
    for name in ("a cat", "a dog-3"):
        mp4.write_mp4(tmp_path / "clips" / f"{name}.mp4", moving(1), 8)
    options = ("--custom", "--dimension", "temporal_flickering", "--out", str(tmp_path / "out"))
    assert score(tmp_path / "clips", *options).exit_code == 0
    assert read_status(tmp_path / "out" / "scores")["temporal_flickering"].partial == "custom videos"
    empty_videos(tmp_path / "clips", "broken.mp4")
    found = score(tmp_path / "clips", *options)
    assert found.exit_code == 1
    assert "left out 1 of 3 videos" in found.output
    assert not list(
        (tmp_path / "out" / "scores").glob("*_eval_results.json")
    )  # the old score is of other videos


def random_raft(cache: Path) -> None:
    """RAFT's weights as the released file has them, random."""
    raft = compat.vbench("third_party.RAFT.core.raft")
    config = importlib.import_module("easydict").EasyDict(
        small=False, mixed_precision=False, alternate_corr=False
    )
    torch.manual_seed(0)
    state = OrderedDict((f"module.{k}", v) for k, v in raft.RAFT(config).state_dict().items())
    path = cache / "raft_model" / "models" / "raft-things.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)


@needs_vbench
@needs_encoder
@pytest.mark.slow
def test_the_static_filter_and_dynamic_degree_run_vbenchs_own_code(tmp_path: Path, cache: Path) -> None:
    """RAFT's weights are random, so which videos pass says nothing; that they are traced back does."""
    random_raft(cache)
    videos = tmp_path / "videos"
    for number in (0, 7, 24):
        mp4.write_mp4(videos / f"{PROMPT}-{number}.mp4", moving(0, frames=3, size=128), 8)
    mp4.write_mp4(videos / "a person swimming in ocean-0.mp4", moving(4, frames=3, size=128), 8)
    found = score(videos, "--dimension", "temporal_flickering,dynamic_degree", "--device", "cpu")
    status = read_status(tmp_path / "scores")
    assert status["dynamic_degree"].state == "done", found.output
    assert status["dynamic_degree"].score in (0.0, 1.0)
    flicker = status["temporal_flickering"]
    assert flicker.expected == 1875
    if flicker.state == "failed":
        assert "kept no video" in flicker.message
        return
    _, rows = json.loads((tmp_path / "scores" / "temporal_flickering_eval_results.json").read_text())[
        "temporal_flickering"
    ]
    assert {row["video_path"] for row in rows} <= {str(videos / f"{PROMPT}-{n}.mp4") for n in (0, 7, 24)}
    assert not (tmp_path / "scores" / "work" / "temporal_flickering" / "static").exists()


HUBCONF = """
import torch

def dino_vitb16(pretrained=True, **kwargs):
    url = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    model.load_state_dict(torch.hub.load_state_dict_from_url(url=url, map_location="cpu"))
    return model
"""


@needs_vbench
@needs_encoder
@pytest.mark.slow
def test_dino_finds_its_weights_in_vbenchs_cache_and_fetches_none(tmp_path: Path, cache: Path) -> None:
    """DINO's own hubconf.py loads them by their address; a stand-in for the network does as it does."""
    repository = cache / "dino_model" / "facebookresearch_dino_main"
    repository.mkdir(parents=True)
    (repository / "hubconf.py").write_text(HUBCONF)
    torch.save({}, cache / "dino_model" / "dino_vitbase16_pretrain.pth")
    mp4.write_mp4(tmp_path / "clips" / "a cat.mp4", moving(0), 8)
    found = score(tmp_path / "clips", "--custom", "--dimension", "subject_consistency", "--device", "cpu")
    assert found.exit_code == 0, found.output
    status = read_status(tmp_path / "scores")["subject_consistency"]
    assert status.score == pytest.approx(1.0, abs=1e-3)  # nothing moves


SITE = """
import sys, types
fake = types.ModuleType("vbench.third_party.grit_model")
class DenseCaptioning:
    def __init__(self, device): pass
    def initialize_model_det(self, model_weight): pass
    def run_caption_tensor(self, frame): raise RuntimeError("no kernel image")
fake.DenseCaptioning = DenseCaptioning
sys.modules[fake.__name__] = fake
"""


@needs_vbench
@needs_encoder
@pytest.mark.slow
def test_a_detector_that_fails_is_not_taken_for_one_that_sees_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VBench's object_class over a detector that raises: by itself it would report 0."""
    site = tmp_path / "site"
    for name in ("detectron2", "fvcore"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("")
    (site / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    empty_videos(cache / "grit_model", "grit_b_densecap_objectdet.pth")
    videos = write_suite(tmp_path / "videos", {0: 1}, "a person")
    found = score(videos, "--dimension", "object_class")
    assert found.exit_code == 1
    assert "the detector failed on 16 of 16 frames" in found.output
    assert "no kernel image" in found.output
    assert not list((tmp_path / "scores").glob("*_eval_results.json"))


def test_what_is_missing_is_told_with_what_to_fetch_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cells.subprocess, "run")
    found = score(empty_videos(tmp_path / "videos", "a cat-0.mp4"))
    assert found.exit_code == 1
    assert "0 of 16 dimensions have a score" in found.output
    status = read_status(tmp_path / "scores")
    assert {s.state for s in status.values()} == {"missing"}
    assert "curl -L -o" in status["motion_smoothness"].ways[0]
    assert found.output.count("grit_b_densecap_objectdet.pth https://") == 1  # of four dimensions, told once
    assert "amt-s.pth (12 MB)" in status["motion_smoothness"].message
    assert "vbench generate --dimension scene" in status["scene"].message
    assert "raft-things.pth" in status["temporal_flickering"].message


def python(tmp_path: Path, body: str) -> Path:
    """An interpreter that is none: a script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("kill -9 $$", "was killed by SIGKILL (out of memory?)"),
        ("echo oops; exit 7", "ended with exit code 7"),
        ("exec sleep 20", "stopped after 1 seconds"),
    ],
)
def test_a_process_that_dies_fails_its_dimension_and_no_other(
    tmp_path: Path, cache: Path, body: str, message: str
) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a cat.mp4")
    options = ("--custom", "--dimension", "motion_smoothness,imaging_quality", "--timeout", "1")
    found = score(videos, *options, "--python", str(python(tmp_path, body)))
    assert found.exit_code == 1
    status = read_status(tmp_path / "scores")
    assert (status["motion_smoothness"].state, status["imaging_quality"].state) == ("failed", "missing")
    assert message in status["motion_smoothness"].message


def test_packages_that_are_missing_in_the_other_environment(tmp_path: Path, cache: Path) -> None:
    """The worker runs with Python's standard library alone as far as it can say so."""
    empty_videos(cache / "grit_model", "grit_b_densecap_objectdet.pth")
    bare = python(tmp_path, f'exec {sys.executable} -I -S "$@"')
    videos = empty_videos(tmp_path / "videos", "a person-0.mp4")
    found = score(videos, "--dimension", "object_class", "--python", str(bare))
    assert "not installed: vbench, detectron2, fvcore" in found.output
    assert "environment of its own" in found.output


def test_two_dimensions_at_a_time_and_a_forced_one(tmp_path: Path, cache: Path) -> None:
    for file in ("amt_model/amt-s.pth", "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"):
        empty_videos((cache / file).parent, Path(file).name)
    videos = empty_videos(tmp_path / "videos", "a cat.mp4")
    writes = (
        "import json, sys; r = json.load(open(sys.argv[2])); "
        'o = dict(state="done", message="", score=0.5, scored=1, results=[0.5, []]); '
        'json.dump(o, open(r["outcome"], "w"))'
    )
    (tmp_path / "fake.py").write_text(writes)
    fake = python(tmp_path, f'exec {sys.executable} -I -S {tmp_path}/fake.py "$@"')
    options = ("--custom", "--dimension", "motion_smoothness,imaging_quality", "--python", str(fake))
    assert score(videos, *options, "--jobs", "2").exit_code == 0
    assert score(videos, *options).output.count("already scored") == 2
    assert "already scored" not in score(videos, *options, "--force").output
    (videos / "a cat.mp4").write_bytes(b"another video")
    assert "already scored" not in score(videos, *options).output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--custom", "--dimension", "color"], "color can only be scored on VBench's own prompts"),
        (["--prompts-file", "a.json"], "goes with --custom"),
        (["--custom", "--prompts-file", "/nowhere.json"], "cannot be read"),
        (["--dimension", "sceen"], "Did you mean 'scene'"),
    ],
)
def test_mistakes_in_the_request(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        score(empty_videos(tmp_path / "videos", "a.mp4"), *options)


def test_a_directory_that_is_not_there_or_holds_no_video(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such directory"):
        score(tmp_path / "none")
    found = score(empty_videos(tmp_path / "videos"), "--custom", "--dimension", "dynamic_degree")
    assert "no video (.mp4" in found.output


@pytest.mark.parametrize("text", ["[1]", '{"a.mp4": 3}', '{"b.mp4": "a cat"}', "{"])
def test_prompts_that_are_not_those_of_the_videos(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.json").write_text(text)
    videos = empty_videos(tmp_path / "videos", "a.mp4")
    with pytest.raises(BenchError, match="--prompts-file"):
        score(videos, "--custom", "--prompts-file", str(tmp_path / "prompts.json"))


def test_a_python_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a.mp4")
    with pytest.raises(BenchError, match="--python /nowhere/python"):
        score(videos, "--custom", "--dimension", "motion_smoothness", "--python", "/nowhere/python")


def test_a_damaged_status_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "status.json").write_text("{")
    with pytest.raises(BenchError, match=r"status\.json: damaged"):
        score(empty_videos(tmp_path / "videos", "a.mp4"))


@pytest.mark.parametrize(
    "act",
    [
        "import subprocess; subprocess.run(['wget', 'https://example.org'])",
        "import subprocess; subprocess.run(['git', 'clone', 'x', 'y'])",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import socket; socket.create_connection(('localhost', 9))",
    ],
)
def test_a_worker_cannot_fetch(act: str) -> None:
    code = f"import sys; from bench.vbench.worker import refuse_network as r; sys.addaudithook(r); {act}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "RuntimeError: VBench wanted to" in ended.stderr
