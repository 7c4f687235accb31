"""Weights: what is absent, and how it is fetched into VBench's cache, from a server on this machine."""

import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench.base.errors import BenchError
from bench.measure.vbench import weight_files
from bench.measure.vbench.dimensions import DIMENSIONS, RAFT, File


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "BENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address, and the directory that is served under it."""
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as serving:
        Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", root
        serving.shutdown()


def test_a_file_is_fetched_into_vbenchs_cache_and_kept_nowhere_else(server: tuple[str, Path]) -> None:
    address, root = server
    (root / "amt-s.pth").write_bytes(b"weights")
    file = File("amt_model/amt-s.pth", f"{address}/amt-s.pth", 12)
    assert weight_files.absent([file]) == [file]
    weight_files.fetch(file)
    assert not weight_files.absent([file])
    assert (weight_files.cache_directory() / file.path).read_bytes() == b"weights"
    assert [p.name for p in (weight_files.cache_directory() / "amt_model").iterdir()] == ["amt-s.pth"]


@pytest.mark.parametrize(
    ("inside", "file"),
    [
        ("models/raft-things.pth", File(RAFT.path, "", unpack=RAFT.unpack)),
        ("dino-main/hubconf.py", File("dino/repo/hubconf.py", "", unpack="dino/repo")),
    ],
)
def test_an_archive_is_unpacked_to_where_vbench_looks(
    server: tuple[str, Path], inside: str, file: File
) -> None:
    address, root = server
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr(inside, "content")
        archive.writestr(f"{inside.rpartition('/')[0]}/more/utils.py", "other")
    weight_files.fetch(File(file.path, f"{address}/a.zip", unpack=file.unpack))
    target = weight_files.cache_directory() / file.path
    assert target.read_text() == "content"
    assert (target.parent / "more" / "utils.py").read_text() == "other"


def test_what_cannot_be_fetched_is_told_with_the_way_by_hand(server: tuple[str, Path]) -> None:
    address, root = server
    with pytest.raises(BenchError, match=r"404[^\n]*\n  By hand: .*curl -L -o"):
        weight_files.fetch(File("a/b.pth", f"{address}/b.pth"))
    (root / "b.zip").write_bytes(b"no archive")
    with pytest.raises(BenchError, match="cannot put"):
        weight_files.fetch(File("a/b.pth", f"{address}/b.zip", unpack="a"))
    with zipfile.ZipFile(root / "c.zip", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(BenchError, match=r"holds no b\.pth"):
        weight_files.fetch(File("a/b.pth", f"{address}/c.zip", unpack="a"))


def test_another_file_than_the_known_one_is_not_kept(server: tuple[str, Path]) -> None:
    address, root = server
    (root / "b.pt").write_bytes(b"another")
    with pytest.raises(BenchError, match="sha256"):
        weight_files.fetch(File("a/b.pt", f"{address}/b.pt", sha256="0" * 64))
    assert not (weight_files.cache_directory() / "a" / "b.pt").exists()


def test_scene_also_needs_a_repository_of_the_hub() -> None:
    assert weight_files.absent_hub(DIMENSIONS["scene"]) == ["bert-base-uncased"]
    assert weight_files.absent_hub(DIMENSIONS["color"]) == []


def test_the_static_filter_needs_raft() -> None:
    assert weight_files.needed(DIMENSIONS["temporal_flickering"], True) == (RAFT,)
    assert weight_files.needed(DIMENSIONS["temporal_flickering"], False) == ()
