"""Sets that are fetched, from small files in their authors' formats where the fetched ones would be."""

import json
import sys
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.data import advice, prompts, sources
from bench.data.cache import file_path
from bench.data.prompts import BUILT_IN, formats, public

FETCHED = [name for name in BUILT_IN if prompts.needs(name)]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def in_hub(caches: Path, repository: str, file: str) -> Path:
    """Where the hub's cache has a file of a dataset."""
    folder = caches / "hub" / f"datasets--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("0" * 40)
    path = folder / "snapshots" / ("0" * 40) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def fetched(name: str, contents: str) -> None:
    path = file_path(prompts.needs(name)[0])
    path.parent.mkdir(parents=True)
    path.write_text(contents, encoding="utf-8")


def everything(loaded: prompts.PromptSet) -> set[str]:
    return {*loaded.train, *loaded.eval}


@pytest.mark.parametrize("name", FETCHED)
def test_a_set_that_is_not_here_is_one_message_with_the_command(name: str):
    with pytest.raises(BenchError) as error:
        prompts.load(name)
    assert f"prompt set '{name}' is not on this machine" in str(error.value)
    assert f"python -m bench fetch --prompts {name}\n" in str(error.value)


@pytest.mark.parametrize("name", FETCHED)
def test_fetching_without_a_network_is_one_message_per_file_with_a_command(name: str):
    for need in prompts.needs(name):
        with pytest.raises(BenchError, match="HF_HUB_OFFLINE is set") as error:
            sources.locate(need)
        assert advice.fetch_command(need) in str(error.value)
        assert "--set" not in str(error.value)


def test_hub_files_are_asked_for_as_a_dataset():
    command = advice.fetch_command(prompts.needs("pickapic")[0])
    assert command.startswith("hf download --repo-type dataset yuvalkirstain/pickapic_v1_no_images ")
    assert command.endswith("--include 'data/validation_unique-*.parquet'")


def test_hpdv2_splits_each_style_and_together_they_are_the_whole(caches: Path):
    for style in public.STYLES:
        texts = [f"{style} picture {i}" for i in range(40)] + ["shared by all styles"]
        in_hub(caches, "zhwang/HPDv2", f"benchmark/{style}.json").write_text(json.dumps(texts))
    whole = prompts.load("hpdv2")
    assert len(whole.train) + len(whole.eval) == 161
    for style in public.STYLES:
        one = prompts.load(f"hpdv2-{style}")
        assert set(one.train) <= set(whole.train) and set(one.eval) <= set(whole.eval)
        assert len(everything(one)) == 41


def test_hpdv2_that_is_here_in_part_is_not_here(caches: Path):
    in_hub(caches, "zhwang/HPDv2", "benchmark/anime.json").write_text('["a", "b"]')
    assert everything(prompts.load("hpdv2-anime")) == {"a", "b"}
    with pytest.raises(BenchError, match="bench fetch --prompts hpdv2\n"):
        prompts.load("hpdv2")


def test_drawbench_is_read_from_its_sheet():
    fetched(
        "drawbench",
        '"Prompts","Category"\n"A red colored car.","Colors"\n'
        '"A sign that says ""Hello"", and a, comma.","Text"\n"A red colored car. ","Colors"\n',
    )
    found = everything(prompts.load("drawbench"))
    assert found == {"A red colored car.", 'A sign that says "Hello", and a, comma.'}


def test_partiprompts_keeps_quotation_marks():
    fetched(
        "partiprompts",
        "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology-inspired\n"
        ' a sign that says "Deep\tArtifacts\tBasic\t\r\n"Hi" on a wall\tArtifacts\tBasic\t\n',
    )
    assert everything(prompts.load("partiprompts")) == {"bond", 'a sign that says "Deep', '"Hi" on a wall'}


def test_pickapic_trains_on_validation_and_evaluates_on_test(caches: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    for part, captions in {
        "validation_unique": ["a cat", "A  Dog", "seen in both", None],
        "test_unique": ["Seen in both", "a bird "],
    }.items():
        path = in_hub(caches, "yuvalkirstain/pickapic_v1_no_images", f"data/{part}-00000-of-00001-ab.parquet")
        parquet.write_table(pyarrow.table({"ranking_id": range(len(captions)), "caption": captions}), path)
    loaded = prompts.load("pickapic")
    assert loaded.train == ("a cat", "A Dog")
    assert loaded.eval == ("Seen in both", "a bird")


def test_a_damaged_parquet_file_is_named(tmp_path: Path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"not found")
    with pytest.raises(BenchError, match=r"x\.parquet: cannot be read as parquet"):
        formats.parquet_column(tmp_path / "x.parquet", "caption")


def test_a_parquet_file_without_pyarrow_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BenchError, match="pip install pyarrow"):
        formats.parquet_column(tmp_path / "x.parquet", "caption")


def test_distinct_texts_differ_in_more_than_space_and_capitals():
    texts = [" a  cat ", "", "A cat", "a\ndog", "  ", "straße", "STRASSE"]
    assert formats.distinct(texts) == ("a cat", "a dog", "straße")


DAMAGED = {
    "not JSON": ("json", "<html>"),
    "expected a JSON list of texts": ("json", '["a", 3]'),
    "no column 'Prompts', but Sign in": ("csv", "Sign in\nx\n"),
    "no column 'Prompts', but nothing": ("csv", ""),
    "not a csv table": ("csv", 'Prompts,Category\n"a"b,c\n'),
    "no column 'Prompt', but Prompts": ("tsv", "Prompts\tCategory\n"),
    "entry 1 has no text 'prompt_en'": ("suite", '[{"prompt_en": "a"}, {"prompt": "b"}]'),
    "expected a JSON list of objects": ("suite", "{}"),
}
READERS = {
    "json": formats.json_texts,
    "csv": lambda path: formats.table_column(path, "Prompts", "csv"),
    "tsv": lambda path: formats.table_column(path, "Prompt", "tsv"),
    "suite": lambda path: formats.json_field(path, "prompt_en"),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_a_file_in_another_format_is_named(tmp_path: Path, message: str):
    kind, contents = DAMAGED[message]
    path = tmp_path / "original"
    path.write_text(contents)
    with pytest.raises(BenchError, match=message) as error:
        READERS[kind](path)
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_not_utf8_is_named_too(tmp_path: Path):
    path = tmp_path / "original"
    path.write_bytes(b'["caf\xe9"]')
    with pytest.raises(BenchError, match="not UTF-8"):
        formats.json_texts(path)
