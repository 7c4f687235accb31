"""`bench vbench generate`: what it writes, skips, shares out and refuses, with a toy that makes videos."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from bench.base.errors import BenchError
from bench.cli.main import app
from bench.data.prompts.dcot import DcotConfig
from bench.measure.vbench import generate, mp4, record, resolve, suite
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.run.store import CellDir
from tests.measure.vbench.toy import VideoToy

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, mp4.PACKAGES)),
    reason="pip install -e '.[vbench]'",
)


def run(*arguments: str) -> Result:
    given = ["vbench", "generate", "--model", "tiny-video", "--dimension", "scene", *arguments]
    with mock.patch("bench.cli.vbench.console", Console(width=200)):
        return CliRunner().invoke(app, given, catch_exceptions=False)


def digests(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.glob("*.mp4")}


@pytest.mark.slow
def test_the_videos_of_a_subset_are_written_under_vbenchs_names(chain: VideoToy, tmp_path: Path) -> None:
    found = run("--subset", "2", "--out", str(tmp_path / "videos"), "--at-once", "3")
    assert found.exit_code == 0, found.output
    assert "10 videos of 2 prompts; 0 are there already" in found.output
    wanted = {video.name for video in suite.videos([DIMENSIONS["scene"]], 2)}
    assert set(digests(tmp_path / "videos")) == wanted == {p.name for p in (tmp_path / "videos").iterdir()}
    written = json.loads((tmp_path / "videos.json").read_text())
    assert (written["model"], written["seed"], written["fps"], written["lora"]) == (
        "tiny-video",
        0,
        8.0,
        None,
    )


@pytest.mark.slow
def test_a_video_does_not_depend_on_batch_shard_and_subset(chain: VideoToy, tmp_path: Path) -> None:
    run("--subset", "2", "--per-prompt", "2", "--at-once", "4", "--out", str(tmp_path / "a"))
    for part in ("1/3", "2/3", "3/3"):
        run("--subset", "3", "--per-prompt", "2", "--shard", part, "--out", str(tmp_path / "b"))
    small, large = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert (len(small), len(large)) == (4, 6)
    assert {name: large[name] for name in small} == small
    assert len(set(large.values())) == 6  # all are different


@pytest.mark.slow
def test_what_is_there_is_skipped_and_a_broken_off_run_continued(chain: VideoToy, tmp_path: Path) -> None:
    out = tmp_path / "videos"
    run("--subset", "1", "--out", str(out))
    gone, *kept = sorted(out.iterdir())
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert "4 are there already" in run("--subset", "1", "--out", str(out)).output
    assert gone.is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    run("--subset", "1", "--out", str(out), "--force")
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    found = run("--dry-run", "--dimension", "all", "--out", str(tmp_path / "videos"))
    assert "6220 videos of 944 prompts" in found.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_videos_of_two_kinds_are_not_mixed(chain: VideoToy, tmp_path: Path) -> None:
    run("--subset", "1", "--out", str(tmp_path / "videos"))
    with pytest.raises(BenchError, match="made with another seed, fps"):
        run("--subset", "1", "--out", str(tmp_path / "videos"), "--seed", "1", "--fps", "12")


@pytest.mark.parametrize("kind", ["--dry-run", "--force"])
def test_a_model_of_pictures_is_refused_before_it_is_loaded(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="'tiny' makes pictures, not videos"):
        run("--model", "tiny", kind, "--out", str(tmp_path / "videos"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_record_without_a_video_binds_nobody(chain: VideoToy, tmp_path: Path) -> None:
    chain.pictures = True
    with pytest.raises(BenchError, match="makes pictures, not videos"):
        run("--subset", "1", "--out", str(tmp_path / "videos"))
    chain.pictures = False
    assert not run("--subset", "1", "--out", str(tmp_path / "videos"), "--seed", "1").exit_code


@pytest.mark.slow
def test_force_leaves_no_video_of_another_kind(
    chain: VideoToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--per-prompt", "1", "--out", str(tmp_path / "videos"))
    run("--subset", "3", *out)
    first = digests(tmp_path / "videos")
    with monkeypatch.context() as patch:  # broken off while it removes: what is left is of the old kind
        patch.setattr(Path, "unlink", mock.Mock(side_effect=[None, RuntimeError]))
        with pytest.raises(RuntimeError):
            run("--subset", "1", "--seed", "1", "--force", *out)
    with pytest.raises(BenchError, match="another seed"):
        run("--subset", "1", "--seed", "1", *out)
    run("--subset", "1", "--seed", "1", "--force", *out)
    assert "1 are there already" in run("--subset", "3", "--seed", "1", *out).output
    last = digests(tmp_path / "videos")
    assert set(last) == set(first) and not set(last.values()) & set(first.values())


def test_a_process_stops_when_another_makes_other_videos_there(
    chain: VideoToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began in an empty directory; the other one wrote its record while this one loaded the model."""
    loads = generate.load_chain

    def other(*given: Any) -> Any:
        path = tmp_path / "videos.json"
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
        return loads(*given)

    monkeypatch.setattr(generate, "load_chain", other)
    with pytest.raises(BenchError, match="another process began to make videos there with another seed"):
        run("--subset", "1", "--out", str(tmp_path / "videos"))
    assert not digests(tmp_path / "videos")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_record_is_named(chain: VideoToy, tmp_path: Path, text: str) -> None:
    run("--subset", "1", "--per-prompt", "1", "--out", str(tmp_path / "videos"))
    (tmp_path / "videos.json").write_text(text)
    with pytest.raises(BenchError, match=r"videos\.json: damaged"):
        run("--subset", "1", "--out", str(tmp_path / "videos"))


@pytest.mark.slow
def test_what_differs_in_weights_or_decomposition_is_another_kind(
    chain: VideoToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--subset", "1", "--per-prompt", "1", "--out", str(tmp_path / "videos"))
    run(*options)
    with monkeypatch.context() as patch:
        patch.setattr(record.digests, "digest", lambda *_: "another")
        with pytest.raises(BenchError, match="another weights"):
            run(*options)
    monkeypatch.setattr(resolve, "trained_dcot", lambda _: DcotConfig())
    with pytest.raises(BenchError, match="another dcot"):
        run(*options)


@pytest.mark.slow
def test_a_lora_is_loaded_and_recorded(chain: VideoToy, tmp_path: Path) -> None:
    adapter = tmp_path / "cell" / "lora"
    adapter.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, str(adapter / "adapter_model.safetensors"))
    run("--subset", "1", "--per-prompt", "1", "--lora", str(tmp_path / "cell"), "--out", str(tmp_path / "v"))
    assert chain.loaded == [adapter]
    assert json.loads((tmp_path / "v.json").read_text())["lora_sha256"]
    save_file({"a": torch.ones(1)}, str(adapter / "adapter_model.safetensors"))
    with pytest.raises(BenchError, match="another lora_sha256"):
        run("--subset", "1", "--lora", str(tmp_path / "cell"), "--out", str(tmp_path / "v"))


def test_a_cell_that_trained_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").touch()
    training = SimpleNamespace(method=SimpleNamespace(name="doodl"), train=SimpleNamespace(steps=0))
    monkeypatch.setattr(CellDir, "config", lambda _: SimpleNamespace(training=training))
    with pytest.raises(BenchError, match="doodl trains nothing"):
        run("--lora", str(tmp_path), "--dry-run")


def test_the_directory_is_named_by_the_model_and_the_cell() -> None:
    assert resolve.directory_name("hub:a/b", None) == "hub_a_b"
    assert resolve.directory_name("tiny", Path("cells/rlr.0")) == "tiny-rlr.0"


@pytest.mark.parametrize(("model", "fps"), [("videocrafter2", 10), ("modelscope", 8), ("tiny-video", 8)])
def test_frame_rates_of_shipped_models_are_those_of_vbenchs_authors(
    model: str, fps: float, tmp_path: Path
) -> None:
    """VideoCrafter2's UNet is told 24 frames per second, but its authors' files have 10."""
    request = resolve.request([DIMENSIONS["scene"]], model, out=tmp_path / "videos")
    assert resolve.resolve(request).fps == fps


def test_a_frame_rate_can_be_asked_for(tmp_path: Path) -> None:
    request = resolve.request([DIMENSIONS["scene"]], "videocrafter2", out=tmp_path / "videos", fps=12)
    assert resolve.resolve(request).fps == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dimension", "scenery"], "unknown dimension 'scenery'"),
        (["--lora", "/nowhere"], "neither a cell with a trained LoRA"),
        (["--shard", "9/3"], "expected K/N"),
        (["--set", "model.frame=3"], "unknown key"),
        (["--model", "tinny"], "Did you mean 'tiny'"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(generate, "load_chain")
    with pytest.raises(BenchError, match=message):
        run("--out", str(tmp_path / "videos"), *arguments)


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(BenchError, match="whose videos"):
        CliRunner().invoke(app, ["vbench", "generate"], catch_exceptions=False)
