"""Folders to a hub: what it gets, and why it may not, before anything is sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from bench.base.errors import BenchError
from bench.data import hub_push
from tests.support.fake_hub import GOOD_TOKEN, FakeHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.use(monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
        yield server


def write(folder: Path, **files: str) -> list[str]:
    """Text files, and their names."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return list(files)


@pytest.mark.parametrize("public", [False, True])
def test_a_new_repository_is_private_unless_public_and_gets_the_files_alone(
    hub: FakeHub, public: bool, tmp_path: Path
) -> None:
    files = write(tmp_path / "out", **{"README.md": "---\ntags: [lora]\n---\n", "images/0.txt": "picture"})
    (tmp_path / "out" / "somebody's.txt").write_text("other")
    hub_push.check("us/lora", overwrite=False)
    assert hub_push.push("us/lora", tmp_path / "out", files, public) == f"{hub.url}/us/lora"
    made = hub.repositories["us/lora"]
    assert made.private is not public
    assert made.files == {name: (tmp_path / "out" / name).read_bytes() for name in files}


def test_one_that_exists_is_overwritten_only_if_asked_and_keeps_its_other_files(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("me/lora", {"old.txt": b"old", "new.txt": b"old"})
    with pytest.raises(BenchError, match=r"--push me/lora: exists already.*--overwrite"):
        hub_push.check("me/lora", overwrite=False)
    hub_push.check("me/lora", overwrite=True)
    hub_push.push("me/lora", tmp_path / "out", write(tmp_path / "out", **{"new.txt": "new"}), False)
    assert hub.repositories["me/lora"].files == {"old.txt": b"old", "new.txt": b"new"}


@pytest.mark.parametrize(
    ("repository", "user", "message"),
    [
        ("lora", {}, "--push lora: not a repository's name: ORG/NAME"),
        ("them/lora", {}, "the token is of me, who writes for: me, us"),
        ("me/lora", {"auth": {"accessToken": {"role": "read"}}}, "may only read: hf auth login"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_made(
    hub: FakeHub, repository: str, user: dict[str, Any], message: str
) -> None:
    hub.user |= user
    with pytest.raises(BenchError, match=message):
        hub_push.check(repository, overwrite=False)
    assert all(request.method == "GET" for request in hub.requests)


def test_without_token_or_network_it_says_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BenchError, match="no token of the hub on this machine: hf auth login"):
        hub_push.check("me/lora", overwrite=False)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(BenchError, match="the hub refuses the token"):
        hub_push.check("me/lora", overwrite=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BenchError, match=r"http://127\.0\.0\.1:9 is unreachable: .*Without --push"):
        hub_push.check("me/lora", overwrite=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BenchError, match="HF_HUB_OFFLINE is set"):
        hub_push.check("me/lora", overwrite=False)


def test_a_push_that_breaks_off_says_what_is_left_to_do(hub: FakeHub, tmp_path: Path) -> None:
    files = write(tmp_path / "out", **{"a.txt": "a"})
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(
        BenchError, match=r"not sent, or not all of it: .*\n.*with --overwrite sends them again"
    ):
        hub_push.push("me/lora", tmp_path / "out", files, False)
