"""Models that were trained on the suite's own prompts: their scores say so."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from bench.base.errors import BenchError
from bench.experiment.model_files import model_settings
from bench.measure.vbench import generate, mp4, record, resolve, suite, table
from bench.measure.vbench.dimension_status import read_status
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.results import read
from bench.measure.vbench.score_request import ScoreRequest
from bench.run.sample import trained_model
from bench.run.store import CellDir
from tests.measure.vbench.test_score import DONE, python
from tests.measure.vbench.toy import VideoToy
from tests.measure.vbench.videos import PROMPT, empty_videos, score

NOTE = "trained on 758 of the suite's 944 prompts"


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The settings of a trained cell in tmp_path/cell, to be changed."""
    (tmp_path / "cell" / "lora").mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, str(tmp_path / "cell" / "lora" / "adapter_model.safetensors"))
    (tmp_path / "cell" / "config.yaml").touch()
    model = SimpleNamespace(name="tiny-video", config=model_settings("tiny-video", []))
    training = SimpleNamespace(train=SimpleNamespace(steps=1))
    config = SimpleNamespace(prompts="vbench", model=model, training=training, dcot=None)
    monkeypatch.setattr(CellDir, "config", lambda _: config)
    return config


def trained(videos: Path, count: Any) -> None:
    """A record of videos, as `generate` writes it."""
    record.place(videos).write_text(json.dumps({"trained_on": {"prompts": "vbench", "of_suite": count}}))


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, mp4.PACKAGES)), reason="pip install -e '.[vbench]'")
def test_videos_say_what_their_model_was_trained_on(
    chain: VideoToy, cell: SimpleNamespace, tmp_path: Path
) -> None:
    out = tmp_path / "videos"
    scene, lora = [DIMENSIONS["scene"]], tmp_path / "cell"
    asked = resolve.request(scene, lora=lora, out=out, subset=1, per_prompt=1)
    generate.generate(Console(quiet=True), asked)
    written = json.loads(record.place(out).read_text())
    assert written["trained_on"] == {"prompts": "vbench", "of_suite": 758}
    assert record.trained_note(out) == NOTE
    del written["trained_on"]  # as an older version wrote it: the same videos all the same
    record.place(out).write_text(json.dumps(written))
    generate.generate(Console(quiet=True), asked)
    assert record.trained_note(out) == NOTE


def test_the_prompts_of_any_set_are_counted(cell: SimpleNamespace, tmp_path: Path) -> None:
    cell.prompts = str(tmp_path / "own.jsonl")
    assert record.trained_on(tmp_path / "cell") == {"prompts": cell.prompts, "of_suite": None}
    lines = [{"prompt": prompt, "split": "train"} for prompt in ("a house", *suite.distinct()[:3])]
    lines.append({"prompt": suite.distinct()[3], "split": "eval"})  # which training does not see
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert record.trained_on(tmp_path / "cell" / "lora") == {"prompts": cell.prompts, "of_suite": 3}
    assert record.trained_on(tmp_path) is None


@pytest.mark.silent
def test_a_lora_of_another_family_than_the_named_models_is_refused(
    cell: SimpleNamespace, tmp_path: Path
) -> None:
    name, config = trained_model("tiny-video", tmp_path / "cell", [])
    assert (name, config.family) == ("tiny-video", "video")
    with pytest.raises(BenchError, match=r"of family image, and the LoRA in .* was trained on tiny-video"):
        trained_model("tiny", tmp_path / "cell", [])
    _, elsewhere = trained_model(f"path:{tmp_path}", tmp_path / "cell", [])
    assert elsewhere.family == "video"


@pytest.mark.parametrize("count", [0, None, "many"])
def test_other_models_have_no_note(tmp_path: Path, count: Any) -> None:
    assert record.trained_note(tmp_path / "videos") == ""
    trained(tmp_path / "videos", count)
    assert record.trained_note(tmp_path / "videos") == ""


def test_every_score_of_such_a_model_is_starred_also_one_of_before(tmp_path: Path, cache: Path) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "mine" / "videos", f"{PROMPT}-0.mp4", "a person swimming in ocean-0.mp4")
    result = DONE.replace("[0.5, []]", '[0.5, [{"video_path": "a", "video_results": 0.5}]]')
    fake = python(tmp_path, f"echo '{result}' > $(dirname $2)/outcome.json")
    options = ("--dimension", "motion_smoothness", "--python", str(fake))
    assert score(videos, *options).exit_code == 0
    status = read_status(tmp_path / "mine" / "scores")["motion_smoothness"]
    assert "trained" not in status.partial
    trained(videos, 758)
    words = " ".join(score(videos, *options).output.split())
    assert "already scored" in words and NOTE in words
    (row,) = read([tmp_path / "mine"])
    assert row.notes["motion_smoothness"].endswith(NOTE)
    assert table.cell(row, "motion_smoothness") == "50.00*"
    trained(videos, 12)
    for name in ("scene", "color"):
        assert "12 of the suite's" in ScoreRequest(dimension=name, videos=videos, out=tmp_path).partial()
