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


@pytest.mark.silent
@pytest.mark.parametrize(
    "names",
    [
        [f"{n}.png" for n in range(12)],
        [f"seed{s}_step{n}.png" for s in (2, 10) for n in (1, 9, 100)],
        ["a01.png", "a1.png", "a2.png", "a010.png"],
    ],
)
def test_lines_of_prompts_go_to_pictures_in_the_order_of_the_numbers_in_their_names(
    tmp_path: Path, names: list[str]
) -> None:
    draw(tmp_path / "p", *names)
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"prompt of {name}\n" for name in names))
    assert [(one.file.name, one.prompt) for one in find(tmp_path / "p", file)] == [
        (name, f"prompt of {name}") for name in names
    ]


def listed(directory: Path, *records: dict[str, object], name: str = "metadata.jsonl") -> Path:
    file = directory / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


@pytest.mark.silent
def test_pictures_of_one_name_in_several_folders_get_each_their_own_prompt(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw(tmp_path / folder, "0.png")
    listed(
        tmp_path,
        {"file_name": "b/0.png", "prompt": "of b"},
        {"file_name": str(tmp_path / "a" / "0.png"), "prompt": "of a"},
    )
    found = [(str(one.file.relative_to(tmp_path)), one.prompt) for one in find(tmp_path)]
    assert found == [("a/0.png", "of a"), ("b/0.png", "of b")]
    draw(tmp_path, "0.png")
    assert "no prompt for 0.png" in refusal(tmp_path)


@pytest.mark.silent
@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"file": "a.png", "prompt": "one"}, {"file": "./a.png", "prompt": "two"}],
            "line 2 names ./a.png again, after .*line 1",
        ),
        ([{"file": "../a.png", "prompt": "one"}, {"file": "a.png", "prompt": "two"}], "not there: ../a.png"),
        ([{"file": "a.png", "prompt": ["one"]}], "line 1: expected"),
        ([{"file": "a.png", "prompt": None}], "line 1: expected"),
        ([{"file": "a.png", "file_name": "b.png", "prompt": "one"}], "line 1: expected"),
        ([], "no prompt for a.png"),
    ],
)
def test_a_list_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, records: list[dict[str, object]], message: str
) -> None:
    draw(tmp_path, "a.png")
    listed(tmp_path, *records)
    with pytest.raises(BenchError, match=message):
        find(tmp_path)


@pytest.mark.silent
def test_a_line_that_says_its_prompt_twice_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file": "a.png", "prompt": "one", "prompt": "two"}\n')
    assert "line 1: 'prompt' is twice in one object" in refusal(tmp_path)


@pytest.mark.silent
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.json", "prompts.csv"])
def test_a_list_in_another_format_is_read_and_not_passed_over_for_the_names(
    tmp_path: Path, name: str
) -> None:
    draw(tmp_path, "a name-0.png", "a name-1.png")
    text = 'file_name,prompt,seed\na name-0.png,"a cat, red",1\na name-1.png,a dog,2\n'
    if name.endswith(".json"):
        text = json.dumps(
            [{"file": "a name-1.png", "prompt": "a dog"}, {"file": "a name-0.png", "prompt": "a cat, red"}],
            indent=2,
        )
    (tmp_path / name).write_text(text)
    assert prompts(tmp_path) == ["a cat, red", "a dog"]
    given = tmp_path / "elsewhere"
    given.mkdir()
    (tmp_path / name).rename(given / name)
    assert prompts(tmp_path, given / name) == ["a cat, red", "a dog"]


@pytest.mark.silent
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "prompt\na cat\n", "looks like the header of a table"),
        ("p.tsv", "prompt\na cat\n", "files like .tsv are not read as prompts"),
        ("p.yaml", "- a cat\n- a dog\n", "files like .yaml are not read as prompts"),
    ],
)
def test_a_file_that_is_no_list_of_lines_gives_pictures_no_prompts(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(text)
    assert message in refusal(tmp_path, tmp_path / name)
