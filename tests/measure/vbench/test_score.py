"""`bench vbench score`: what can be missing, go wrong or be skipped. Real scores: test_real_package."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.measure.vbench import dimension_run, scorer
from bench.measure.vbench.dimension_status import read_status
from bench.measure.vbench.score_request import ScoreRequest
from tests.measure.vbench.videos import empty_videos, score


def test_what_is_missing_is_told_with_what_to_fetch_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(dimension_run.subprocess, "run")
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
    assert "score moving ones too: --no-static-filter" in status["temporal_flickering"].message


def python(tmp_path: Path, body: str) -> Path:
    """An interpreter that is none: a script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "timeout", "message"),
    [
        ("kill -9 $$", 1000, "was killed by SIGKILL (out of memory?)"),
        ("echo oops; exit 7", 1000, "ended with exit code 7"),
        ("exec sleep 1000", 1, "stopped after 1 seconds"),
    ],
)
def test_a_process_that_dies_fails_its_dimension_and_no_other(
    tmp_path: Path, cache: Path, body: str, timeout: int, message: str
) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a cat.mp4")
    options = (
        "--custom",
        "--dimension",
        "motion_smoothness,imaging_quality",
        "--timeout-per-dimension",
        str(timeout),
    )
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


@pytest.mark.slow
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
        (["--custom", "--prompts-file", "/nowhere.json"], "nowhere.json: no such prompt file"),
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


def test_prompts_are_wanted_for_every_kind_of_video(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('{"a.mp4": "a cat"}')
    videos = empty_videos(tmp_path / "videos", "a.mp4", "b.GIF")
    with pytest.raises(BenchError, match=r"no prompt for b\.GIF"):
        score(videos, "--custom", "--prompts-file", str(tmp_path / "prompts.json"))


@pytest.mark.silent
@pytest.mark.parametrize("key", ["{videos}/a.mp4", "a.mp4", "./a.mp4", "{link}/a.mp4"])
def test_keys_of_prompts_may_be_whole_paths(tmp_path: Path, key: str) -> None:
    videos = empty_videos(tmp_path / "videos", "a.mp4")
    (tmp_path / "link").symlink_to(videos)
    file = tmp_path / "prompts.json"
    whole = key.format(videos=videos, link=tmp_path / "link")
    file.write_text(json.dumps({whole: "a cat", f"{tmp_path}/other/b.mp4": "a dog"}))
    request = ScoreRequest(videos=videos, out=tmp_path, dimension="scene", custom=True, prompts_file=file)
    assert request.prompts()["a.mp4"] == "a cat"


@pytest.mark.silent
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"/elsewhere/a.mp4": "a cat"}',
            "no prompt for a.mp4: its keys are like '/elsewhere/a.mp4', and should",
        ),
        ('{"videos/a.mp4": "a cat"}', "should be names of files in "),
        ('{"a.mp4": "a cat", "./a.mp4": "a dog"}', "'./a.mp4' is a.mp4 again"),
        ('{"a.mp4": "a cat", "a.mp4": "a dog"}', "'a.mp4' is twice in one object"),
        ('{"a.mp4": " "}', "with no empty prompt"),
        ("{}", "no prompt for a.mp4: it is empty"),
    ],
)
def test_prompts_for_other_videos_or_two_for_one_are_refused(tmp_path: Path, text: str, message: str) -> None:
    videos, file = empty_videos(tmp_path / "videos", "a.mp4"), tmp_path / "prompts.json"
    file.write_text(text)
    with pytest.raises(BenchError) as error:
        score(videos, "--custom", "--prompts-file", str(file))
    assert message in str(error.value)


def test_a_python_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a.mp4")
    with pytest.raises(BenchError, match="--python /nowhere/python"):
        score(videos, "--custom", "--dimension", "motion_smoothness", "--python", "/nowhere/python")


DONE = '{"state": "done", "message": "", "score": 0.5, "scored": 1, "results": [0.5, []]}'


@pytest.mark.parametrize("harm", ["no python", "no weights"])
def test_a_score_outlives_a_command_that_cannot_score(tmp_path: Path, cache: Path, harm: str) -> None:
    empty_videos(cache / "amt_model", "amt-s.pth")
    videos = empty_videos(tmp_path / "videos", "a cat.mp4")
    fake = python(tmp_path, f"echo '{DONE}' > $(dirname $2)/outcome.json")
    options = ("--custom", "--dimension", "motion_smoothness", "--python")
    assert score(videos, *options, str(fake)).exit_code == 0
    if harm == "no python":
        with pytest.raises(BenchError, match="--python /nowhere"):
            score(videos, *options, "/nowhere", "--force")
    else:
        (cache / "amt_model" / "amt-s.pth").unlink()
        found = score(videos, *options, str(fake), "--force")
        assert found.exit_code == 1 and "no weights" in found.output
    assert (tmp_path / "scores" / "motion_smoothness_eval_results.json").is_file()
    assert read_status(tmp_path / "scores")["motion_smoothness"].state == "done"
    (videos / "a cat.mp4").write_bytes(b"another video")
    (cache / "amt_model" / "amt-s.pth").unlink(missing_ok=True)
    score(videos, *options, str(fake))
    assert not (tmp_path / "scores" / "motion_smoothness_eval_results.json").is_file()
    assert read_status(tmp_path / "scores")["motion_smoothness"].state == "missing"


def test_a_dimension_that_raises_fails_alone(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("amt_model/amt-s.pth", "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"):
        empty_videos((cache / file).parent, Path(file).name)
    fake = python(tmp_path, f"echo '{DONE}' > $(dirname $2)/outcome.json")
    prepare = dimension_run._prepare

    def full(request: ScoreRequest, names: Sequence[str]) -> None:
        if request.dimension == "motion_smoothness":
            raise OSError("disk full")
        prepare(request, names)

    monkeypatch.setattr(dimension_run, "_prepare", full)
    options = ("--custom", "--dimension", "motion_smoothness,imaging_quality", "--python", str(fake))
    assert score(empty_videos(tmp_path / "videos", "a.mp4"), *options).exit_code == 1
    found = read_status(tmp_path / "scores")
    assert (found["motion_smoothness"].state, found["imaging_quality"].state) == ("failed", "done")
    assert "disk full" in found["motion_smoothness"].message


def test_the_action_of_a_custom_video_is_its_prompts(tmp_path: Path) -> None:
    videos = empty_videos(tmp_path / "videos", "x.mp4", "A person is riding a bike-3.mp4")
    request = ScoreRequest(dimension="human_action", videos=videos, out=tmp_path, custom=True)
    names = [video.name for video in sorted(videos.iterdir())]
    assert dimension_run._shown(request, names) == {"riding a bike-0.mp4": names[0], "x-1.mp4": "x.mp4"}
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"x.mp4": "A person is dancing.", names[0]: "A person is riding a bike"}))
    shown = dimension_run._shown(request.model_copy(update={"prompts_file": prompts}), names)
    assert shown == {"riding a bike-0.mp4": names[0], "dancing-1.mp4": "x.mp4"}
    assert not scorer.without_action({"riding a bike-0.mp4": "a"}, {"1": "riding a bike"})
    assert "in the prompt of x.mp4 (1 of 1)" in scorer.without_action({"x-1.mp4": "x.mp4"}, {"1": "yoga"})


def test_a_damaged_status_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores" / "status").mkdir(parents=True)
    (tmp_path / "scores" / "status" / "scene.json").write_text("{")
    with pytest.raises(BenchError, match=r"scene\.json: damaged"):
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
    code = (
        f"import sys; from bench.measure.vbench.scorer import refuse_network as r; sys.addaudithook(r); {act}"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "RuntimeError: VBench wanted to" in ended.stderr
