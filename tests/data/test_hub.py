"""Fetching from a hub that fails as the real one does."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from bench.base.errors import BenchError
from bench.data import hub
from bench.data.advice import bench_command, fetch_flag
from bench.data.need import HUB_PATTERNS, Need
from bench.data.sources import find, locate
from tests.support.fake_hub import GOOD_TOKEN, FakeHub

WEIGHTS = "unet/model.safetensors"
FILES = {"model_index.json": b"{}", WEIGHTS: b"w" * 1000, "README.md": b"read", "flax_model.msgpack": b"x"}
NEED = Need("model", "hub:org/net", "model.path", files=HUB_PATTERNS)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with FakeHub() as server:
        server.use(monkeypatch, tmp_path)
        yield server


def refusal(need: Need = NEED) -> str:
    with pytest.raises(BenchError) as caught:
        locate(need)
    return str(caught.value)


def test_a_snapshot_has_the_wanted_files_alone_and_is_found_again_without_asking(fake: FakeHub) -> None:
    fake.add("org/net", FILES)
    assert find(NEED) is None
    there = locate(NEED)
    assert sorted(p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()) == [
        "model_index.json",
        WEIGHTS,
    ]
    asked = len(fake.requests)
    assert locate(NEED) == find(NEED) == there
    assert len(fake.requests) == asked


def test_what_was_fetched_is_found_offline(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add("org/net", FILES)
    there = locate(NEED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(NEED) == there


def test_a_dataset_is_fetched_as_one(fake: FakeHub) -> None:
    fake.add("datasets/org/texts", {"a.json": b"[]", "b.json": b"[]"})
    need = Need("prompts x", "hub:org/texts", "", files=("a.json",), ignored=(), repo_type="dataset")
    assert [p.name for p in locate(need).iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_a_file_of_a_dataset_that_arrived_damaged_does_not_stay(fake: FakeHub, name: str) -> None:
    fake.add("datasets/org/texts", {name: b'["a cat"]'}, damaged={name: b'["a bat"]'})
    need = Need("prompts x", "hub:org/texts", "", files=(name,), ignored=(), repo_type="dataset")
    with pytest.raises(BenchError, match=f"what arrived as {name} is damaged") as error:
        locate(need)
    assert "python -m bench fetch --prompts x" in str(error.value) and find(need) is None
    assert (locate(need) / name).read_bytes() == b'["a cat"]'


@pytest.mark.slow
def test_a_broken_connection_is_taken_up_where_it_broke(fake: FakeHub) -> None:
    data = bytes(range(256)) * 43_000  # more than one chunk of the library's
    repository = fake.add("org/net", FILES | {WEIGHTS: data}, cuts={WEIGHTS: [10_600_000]})
    assert (locate(NEED) / WEIGHTS).read_bytes() == data
    assert fake.downloads("model.safetensors") == [None, f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-"]
    assert not repository.cuts[WEIGHTS]


def test_after_a_download_that_failed_the_next_one_fetches_what_is_missing(fake: FakeHub) -> None:
    repository = fake.add("org/net", FILES, cuts={WEIGHTS: [10] * 50})
    message = refusal()
    assert "broke off" in message
    assert "python -m bench fetch --model hub:org/net" in message
    assert find(NEED) is None  # half of it is not it
    repository.cuts.clear()
    assert (locate(NEED) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert len(fake.downloads("model_index.json")) == 1


@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_of_somebody_else", 403)])
def test_a_gated_repository_says_where_to_accept_the_licence(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str, status: int
) -> None:
    fake.add("org/net", FILES, gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    message = refusal()
    assert f"the hub answered {status}" in message
    assert "open https://huggingface.co/org/net, accept the licence" in message
    assert "hf auth login" in message
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert (locate(NEED) / WEIGHTS).is_file()


def test_a_private_repository_is_refused_and_an_absent_one_too(fake: FakeHub) -> None:
    fake.add("org/net", FILES, private=True)
    assert "answered 401" in refusal()
    message = refusal(Need("model", "hub:org/gone", "model.path"))
    assert "answered 404" in message
    assert "withdrawn, renamed, or a typing mistake" in message


def test_an_unknown_revision_is_named(fake: FakeHub) -> None:
    fake.add("org/net", FILES)
    message = refusal(Need("model", "hub:org/net", "model.path", revision="v9"))
    assert "has no revision 'v9'" in message
    assert "--set model.revision=main" in message


def test_a_repository_without_weights_is_refused(fake: FakeHub) -> None:
    fake.add("org/net", {"config.json": b"{}", "pytorch_model.bin": b"w"})
    assert "has none of the files" in refusal()


def test_a_name_that_cannot_be_a_repository_is_refused_without_asking(fake: FakeHub) -> None:
    assert "not a repository's name" in refusal(Need("model", "hub:a/b/c", "model.path"))
    assert not fake.requests


def test_offline_names_the_variable(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert "TRANSFORMERS_OFFLINE is set" in refusal()
    assert not fake.requests


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_an_unreachable_hub_or_mirror_is_named_with_what_may_help(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    message = refusal(Need("reward hpsv2 tokenizer", "hub:org/net", "hpsv2.path"))
    assert f"{endpoint} is unreachable" in message
    assert "HF_ENDPOINT" in message
    assert "python -m bench fetch --reward hpsv2\n" in message
    assert "--set hpsv2.path=DIRECTORY" in message


def test_a_full_disk_is_one_message_and_what_is_complete_stays(fake: FakeHub) -> None:
    fake.add("org/net", FILES | {WEIGHTS: b"w" * 200_000})
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert message.startswith(f"model: no space left in {constants.HF_HUB_CACHE}")
    assert "HF_HOME=DIRECTORY python -m bench fetch --model hub:org/net" in message
    assert (locate(NEED) / WEIGHTS).stat().st_size == 200_000
    assert len(fake.downloads("model_index.json")) == 1


def test_the_size_is_known_before_the_download_and_nothing_is_fetched_for_it(fake: FakeHub) -> None:
    fake.add("org/net", FILES)
    assert hub.download_size(NEED) == 1002
    assert fake.downloads("model.safetensors") == []


def test_a_shipped_model_is_named_by_its_name_in_what_to_type() -> None:
    need = Need("model", "hub:CompVis/stable-diffusion-v1-4", "model.path")
    assert bench_command(need) == "python -m bench fetch --model sd14"
    assert fetch_flag(Need("prompts hpdv2", "hub:a/b", "")) == "--prompts hpdv2"


def test_a_pipeline_of_which_another_tool_fetched_a_part_is_not_taken_for_whole(tmp_path: Path) -> None:
    """As `hf_hub_download` of single files, or transformers alone, leave it."""
    index = (
        '{"unet": ["diffusers", "UNet2DConditionModel"], "text_encoder": ["transformers", "CLIPTextModel"]}'
    )
    (tmp_path / "model_index.json").write_text(index)
    for part in ("text_encoder", "unet"):
        assert not hub.holds(tmp_path, NEED)
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(b"w")
    assert hub.holds(tmp_path, NEED)
    named = Need("reward x", "hub:org/net", "x.path", files=("v2.pt", "v2.json"))
    (tmp_path / "v2.pt").write_bytes(b"w")
    assert not hub.holds(tmp_path, named)
    (tmp_path / "v2.json").write_text("{}")
    assert hub.holds(tmp_path, named)
