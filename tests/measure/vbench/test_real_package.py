"""`bench vbench score` through the real vbench package, on small videos."""

import importlib
import json
import os
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.cli.main import app
from bench.measure.vbench import mp4
from bench.measure.vbench.dimension_status import read_status
from rewards.shared import compat
from tests.measure.vbench.test_mp4 import read
from tests.measure.vbench.videos import PROMPT, empty_videos, moving, score, write_suite

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vbench") is None, reason="`make scorers`"),
    pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'"),
]


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


def test_the_static_filter_and_dynamic_degree_run_vbenchs_own_code(tmp_path: Path, cache: Path) -> None:
    """RAFT's weights are random, so which videos pass says nothing; that they are traced back does."""
    random_raft(cache)
    videos = tmp_path / "videos"
    for number in (0, 24):
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
    assert {row["video_path"] for row in rows} <= {str(videos / f"{PROMPT}-{n}.mp4") for n in (0, 24)}
    assert not (tmp_path / "scores" / "work" / "temporal_flickering" / "static").exists()


HUBCONF = """
import torch

def dino_vitb16(pretrained=True, **kwargs):
    url = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    model.load_state_dict(torch.hub.load_state_dict_from_url(url=url, map_location="cpu"))
    return model
"""


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


def test_a_detector_that_fails_is_not_taken_for_one_that_sees_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VBench's object_class over a detector that raises: by itself it would report 0."""
    site = tmp_path / "site"
    for name in ("detectron2", "fvcore"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("")
    (site / "sitecustomize.py").write_text(SITE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    empty_videos(cache / "grit_model", "grit_b_densecap_objectdet.pth")
    videos = write_suite(tmp_path / "videos", {0: 1}, "a person")
    found = score(videos, "--dimension", "object_class")
    assert found.exit_code == 1
    assert "the detector failed on 16 of 16 frames" in found.output
    assert "no kernel image" in found.output
    assert not list((tmp_path / "scores").glob("*_eval_results.json"))
