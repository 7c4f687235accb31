import json
from pathlib import Path

import pytest
from PIL import Image

from bench.base.errors import BenchError
from bench.run.pictures import find


def draw(directory: Path, *names: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), "red").save(directory / name)
    return directory


def prompts(directory: Path, file: Path | None = None) -> list[str]:
    return [picture.prompt for picture in find(directory, file)]


def refusal(directory: Path, file: Path | None = None) -> str:
    with pytest.raises(BenchError) as caught:
        find(directory, file)
    return str(caught.value)


def test_names_as_vbench_writes_them_hold_the_prompt(tmp_path: Path) -> None:
    draw(tmp_path, "a red cat-0.png", "a_red_cat-1.jpg", "two words_and_one-12.png", "3-D art-4.webp")
    assert prompts(tmp_path) == ["3-D art", "a red cat", "a red cat", "two words_and_one"]


@pytest.mark.parametrize("name", ["00.png", "12-3.png", "cat.png", "-1.png"])
def test_a_name_that_says_nothing_is_refused_with_the_ways_to_say_it(tmp_path: Path, name: str) -> None:
    message = refusal(draw(tmp_path, name))
    for way in ("prompts.jsonl", f"{Path(name).stem}.txt", "a_red_cat-0.png", "--prompts-file"):
        assert way in message


def test_each_source_of_prompts_goes_before_the_next(tmp_path: Path) -> None:
    draw(tmp_path, "name-0.png")
    assert prompts(tmp_path) == ["name"]
    (tmp_path / "name-0.txt").write_text("beside\n")
    assert prompts(tmp_path) == ["beside"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "name-0.png", "prompt": "metadata", "seed": 1}\n')
    assert prompts(tmp_path) == ["metadata"]
    (tmp_path / "prompts.jsonl").write_text('{"file": "name-0.png", "prompt": "list"}\n')
    assert prompts(tmp_path) == ["list"]
    given = tmp_path / "given.txt"
    given.write_text("given\n")
    assert prompts(tmp_path, given) == ["given"]


def test_a_list_must_fit_the_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "a-0.png", "b-0.png")
    listed = tmp_path / "prompts.jsonl"
    rows = [{"file": name, "prompt": name} for name in ("a-0.png", "b-0.png", "c-0.png")]
    listed.write_text("\n".join(map(json.dumps, rows[:1])))
    assert "no prompt for b-0.png" in refusal(tmp_path)
    listed.write_text("\n".join(map(json.dumps, rows)))
    assert "not there: c-0.png" in refusal(tmp_path)
    listed.write_text('{"file": "a-0.png"}')
    assert "line 1: expected" in refusal(tmp_path)
    listed.write_text("nonsense")
    assert "line 1 is not JSON" in refusal(tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("one\n")
    assert "1 prompts for 2 pictures" in refusal(tmp_path, short)


def test_a_missing_text_beside_one_picture_is_named(tmp_path: Path) -> None:
    draw(tmp_path, "a-0.png", "b-0.png")
    (tmp_path / "a-0.txt").write_text("a")
    assert "no b-0.txt beside it" in refusal(tmp_path)


def test_a_place_without_pictures_is_refused(tmp_path: Path) -> None:
    assert "no pictures there" in refusal(tmp_path)
    assert "not a directory" in refusal(tmp_path / "none")
