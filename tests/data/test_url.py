"""The cache of downloads, against a server on this machine."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.data import sources, url
from bench.data.cache import cache_directory, file_path
from bench.data.need import Need
from bench.data.url import cached_url, fetch_url
from tests.support.file_server import Server

CONTENTS = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(CONTENTS)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for variable in url.OFFLINE:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


def need(server: Server, sha256: str | None = None) -> Need:
    return Need("reward hps", f"url:{server.url}", "reward.path", sha256=sha256)


def broken_off(server: Server, wanted: Need, after: int = 300_000) -> Path:
    """A download whose server died on the way."""
    server.stop_after, server.dies = after, True
    with pytest.raises(BenchError, match="503"):
        fetch_url(wanted)
    server.stop_after, server.dies, server.status = None, False, 200
    server.asked.clear()
    return file_path(wanted).with_name("net_work.pt.part")


def test_a_file_is_fetched_once_into_a_directory_of_its_own(server: Server, cache: Path):
    wanted = need(server)
    assert cached_url(wanted) is None
    directory = fetch_url(wanted)
    assert directory.parent == cache / "downloads"
    assert (directory / "net_work.pt").read_bytes() == CONTENTS
    assert fetch_url(wanted) == cached_url(wanted) == directory
    assert server.asked == [None]
    assert not list(directory.glob("*.part*"))


def test_locate_finds_what_was_fetched(server: Server):
    assert sources.find(need(server)) is None
    directory = sources.locate(need(server))
    assert sources.find(need(server)) == directory == file_path(need(server)).parent


def test_the_digest_is_checked_and_noted(server: Server):
    directory = fetch_url(need(server, SHA256))
    assert (directory / "net_work.pt.sha256").read_text() == SHA256
    assert cached_url(need(server, SHA256)) == directory


def test_a_file_of_unknown_digest_must_stay_what_it_was_when_it_was_fetched(server: Server):
    wanted = need(server)
    file = fetch_url(wanted) / "net_work.pt"
    assert file.with_name("net_work.pt.sha256").read_text() == SHA256
    changed_later(file, CONTENTS[::-1])
    with pytest.raises(BenchError, match=f"is damaged or another file.*expected {SHA256}") as error:
        cached_url(wanted)
    assert f"rm -f {file} {file}.sha256 && " in str(error.value)
    changed_later(file, CONTENTS)  # as by a copy that does not keep times
    assert cached_url(wanted) == file.parent
    url.forget(wanted)
    assert cached_url(wanted) is None and not file.with_name("net_work.pt.sha256").exists()


def changed_later(file: Path, contents: bytes) -> None:
    file.write_bytes(contents)
    os.utime(file, (time.time() + 10, time.time() + 10))


def test_another_file_than_expected_is_deleted(server: Server):
    wanted = need(server, "0" * 64)
    with pytest.raises(BenchError, match=f"has sha256 {SHA256}, expected 0000") as error:
        fetch_url(wanted)
    assert "curl -L -o" in str(error.value) and str(file_path(wanted)) in str(error.value)
    assert cached_url(wanted) is None
    assert not list(file_path(wanted).parent.glob("*.part*"))


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_right_one(server: Server):
    wanted = need(server, SHA256)
    file_path(wanted).parent.mkdir(parents=True)
    file_path(wanted).write_bytes(b"an error page")
    with pytest.raises(BenchError, match="damaged or another file"):
        cached_url(wanted)
    file_path(wanted).write_bytes(CONTENTS)
    assert fetch_url(wanted) == file_path(wanted).parent
    assert server.asked == []


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_download_continues_where_its_server_died(server: Server, sha256: str | None):
    wanted = need(server, sha256)
    broken_off(server, wanted)
    directory = fetch_url(wanted)
    assert server.asked == ["bytes=300000-"]
    assert (directory / "net_work.pt").read_bytes() == CONTENTS


def test_a_connection_that_breaks_off_again_and_again_is_taken_up_each_time(server: Server):
    server.stop_after = 400_000
    directory = fetch_url(need(server))
    assert server.asked == [None, "bytes=400000-", "bytes=800000-"]
    assert (directory / "net_work.pt").read_bytes() == CONTENTS


def test_a_server_without_ranges_is_read_from_the_start(server: Server):
    wanted = need(server)
    broken_off(server, wanted)
    server.ranges = False
    assert (fetch_url(wanted) / "net_work.pt").read_bytes() == CONTENTS
    assert server.asked == ["bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_read_from_the_start(server: Server):
    wanted = need(server)
    broken_off(server, wanted)
    server.contents, server.etag = CONTENTS[::-1], '"two"'
    assert (fetch_url(wanted) / "net_work.pt").read_bytes() == CONTENTS[::-1]


@pytest.mark.parametrize(
    ("etag", "modified", "asked"),
    [
        (None, None, None),
        ('W/"weak"', None, None),
        (None, "Mon, 06 Jul 2026 10:00:00 GMT", "bytes=300000-"),
    ],
)
def test_only_what_the_server_can_vouch_for_is_continued(
    server: Server, etag: str | None, modified: str | None, asked: str | None
):
    server.etag, server.modified = etag, modified
    wanted = need(server)
    broken_off(server, wanted)
    assert (fetch_url(wanted) / "net_work.pt").read_bytes() == CONTENTS
    assert server.asked == [asked]


def test_a_part_as_long_as_the_file_is_fetched_anew(server: Server):
    wanted = need(server)
    part = broken_off(server, wanted)
    part.write_bytes(b"x" * len(CONTENTS))
    assert (fetch_url(wanted) / "net_work.pt").read_bytes() == CONTENTS
    assert server.asked == [f"bytes={len(CONTENTS)}-", None]


def test_a_part_that_was_damaged_is_noticed_by_the_digest_and_the_next_try_succeeds(server: Server):
    wanted = need(server, SHA256)
    part = broken_off(server, wanted)
    part.write_bytes(bytes(300_000))
    with pytest.raises(BenchError, match="it was deleted"):
        fetch_url(wanted)
    assert (fetch_url(wanted) / "net_work.pt").read_bytes() == CONTENTS


def test_what_the_server_refuses_is_said_with_the_way_to_get_it_by_hand(server: Server):
    server.status = 404
    with pytest.raises(BenchError, match=r"reward hps: net_work\.pt .*answered 404 Not Found") as error:
        fetch_url(need(server))
    assert f"curl -L -o {file_path(need(server))} '{server.url}'" in str(error.value)


def test_a_server_that_is_not_there_is_one_message_and_keeps_what_has_come(server: Server):
    wanted = need(server)
    part = broken_off(server, wanted)
    server.close()
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:\d+ is unreachable.*300000 bytes are kept"):
        fetch_url(wanted)
    assert part.stat().st_size == 300_000


@pytest.mark.parametrize("variable", url.OFFLINE)
def test_offline_means_no_request(server: Server, monkeypatch: pytest.MonkeyPatch, variable: str):
    directory = fetch_url(need(server))
    monkeypatch.setenv(variable, "1")
    assert fetch_url(need(server)) == directory
    (directory / "net_work.pt").unlink()
    with pytest.raises(BenchError, match=f"{variable} is set"):
        fetch_url(need(server))
    assert server.asked == [None]


def test_something_that_is_no_url_is_refused():
    with pytest.raises(BenchError, match=r"'example\.org/x' is not a URL"):
        fetch_url(Need("x", "url:example.org/x", ""))


def test_progress_is_told(server: Server):
    told: list[tuple[int, int | None]] = []
    fetch_url(need(server), lambda done, total: told.append((done, total)))
    assert told[-1] == (len(CONTENTS), len(CONTENTS))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_of_several_that_want_a_file_one_fetches_it(server: Server):
    threads = [threading.Thread(target=fetch_url, args=(need(server),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]


def test_a_cache_that_cannot_be_written_is_named(server: Server, cache: Path):
    cache.write_text("a file, where a directory should be")
    with pytest.raises(BenchError, match=f"cannot write to {cache}"):
        fetch_url(need(server))


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "reward-finetuning-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "reward-finetuning-bench"
