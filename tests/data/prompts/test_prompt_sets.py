import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.data.prompts import BUILT_IN, PromptSet, load, needs
from bench.data.prompts.emoji import heldout_prompts, train_prompts

SHIPPED = [name for name in BUILT_IN if not needs(name)]


def written(tmp_path: Path, name: str, *lines: object) -> Path:
    path = tmp_path / name
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_has_two_disjoint_splits_whatever_the_capitals(name):
    prompts = load(name)
    assert prompts.name == name
    assert len(prompts.train) >= 5 and len(prompts.eval) >= 8
    assert not {p.casefold() for p in prompts.train} & {p.casefold() for p in prompts.eval}


def test_what_ships_ships():
    assert SHIPPED == ["animals", "emoji", "emoji-motion", "hand", "signs", "vbench"]


def test_vbench_is_its_whole_suite_once():
    prompts = load("vbench")
    assert len(prompts.train) + len(prompts.eval) == 943  # of 946, two are twice and one differs in a capital
    assert 140 <= len(prompts.eval) <= 240
    assert "In a still frame, a stop sign" in prompts.train + prompts.eval


def test_emoji_evaluates_on_the_combinations_that_were_held_out():
    prompts = load("emoji")
    assert list(prompts.train) == train_prompts() and list(prompts.eval) == heldout_prompts()


def test_a_text_file_keeps_its_order_and_splits_by_hash(tmp_path):
    lines = [f"a picture of number {i}" for i in range(300)]
    prompts = load(written(tmp_path, "mine.txt", "", *lines, "  "))
    assert prompts.name == "mine"
    assert [p for p in lines if p in prompts.train] == list(prompts.train)
    assert sorted(prompts.train + prompts.eval) == sorted(lines)
    assert 30 <= len(prompts.eval) <= 90  # one in five


def test_adding_lines_moves_no_prompt_to_the_other_split(tmp_path):
    lines = [f"a picture of number {i}" for i in range(60)]
    few = load(written(tmp_path, "few.txt", *lines[:30]))
    many = load(written(tmp_path, "many.txt", *reversed(lines)))
    assert set(few.train) <= set(many.train) and set(few.eval) <= set(many.eval)


def test_two_prompts_give_one_to_each_split(tmp_path):
    for pair in (("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")):
        prompts = load(written(tmp_path, "two.txt", *pair))
        assert len(prompts.train) == len(prompts.eval) == 1


def test_jsonl_splits_as_it_says(tmp_path):
    path = written(
        tmp_path,
        "mine.jsonl",
        {"prompt": "a red cube", "split": "train"},
        {"prompt": "a blue ball", "split": "eval"},
        {"split": "train", "prompt": " ein grüner Würfel "},
    )
    assert load(str(path)) == PromptSet("mine", ("a red cube", "ein grüner Würfel"), ("a blue ball",))


def test_jsonl_without_splits_is_split_like_text(tmp_path):
    lines = [f"number {i}" for i in range(40)]
    from_json = load(written(tmp_path, "x.jsonl", *({"prompt": p} for p in lines)))
    assert from_json == load(written(tmp_path, "x.txt", *lines))


TRAIN = {"prompt": "a", "split": "train"}
MISTAKES = {
    "line 2 is not JSON": ("x.jsonl", TRAIN, '{"prompt": '),
    "line 1 is not an object": ("x.jsonl", "[1]"),
    "Did you mean 'split'": ("x.jsonl", {"prompt": "a", "splitt": "train"}),
    "'prompt' must be a text": ("x.jsonl", {"prompt": 3, "split": "train"}),
    "'prompt' must be a text that": ("x.jsonl", {"split": "train"}),
    "must be 'train' or 'eval', not 'test'": ("x.jsonl", {"prompt": "a", "split": "test"}),
    "line 2 has no 'split'": ("x.jsonl", TRAIN, {"prompt": "b"}),
    'no line has "split": "eval"': ("x.jsonl", TRAIN),
    "line 2 repeats the prompt of line 1, 'a'; evaluation": (
        "x.jsonl",
        TRAIN,
        {"prompt": "a", "split": "eval"},
    ),
    "line 3 repeats the prompt of line 1, 'a'$": ("x.txt", "a", "b", "a"),
    "no prompts in this file": ("x.txt", "", " "),
    "only one prompt": ("x.txt", "a"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_file(tmp_path, message):
    name, *lines = MISTAKES[message]
    with pytest.raises(BenchError, match=message) as error:
        load(written(tmp_path, name, *lines))
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BenchError, match=r"gone\.txt: no such prompt file"):
        load(tmp_path / "gone.txt")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"caf\xe9\nb\n")
    with pytest.raises(BenchError, match="not UTF-8"):
        load(tmp_path / "x.txt")


def test_an_unknown_name_gets_the_closest_known_one():
    with pytest.raises(BenchError, match=r"unknown prompt set 'emojis'\. Did you mean 'emoji'"):
        load("emojis")


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        ((), ("a",), "no training prompts"),
        (("a",), (), "no evaluation prompts"),
        (("a", "b"), ("b",), "'b' is in both splits"),
        (("a", "a"), ("b",), "'a' is twice"),
        (("a", " "), ("b",), "an empty prompt"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(train, held_out, message):
    with pytest.raises(BenchError, match=message):
        PromptSet("mine", train, held_out)


def test_prompts_need_no_torch():
    load_all = "[p.load(n) for n in p.BUILT_IN if not p.needs(n)]"
    code = f"import sys, bench.data.prompts as p; {load_all}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


@pytest.mark.silent
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "x.json",
            json.dumps([{"prompt": "a cat, red"}, {"prompt": "a dog"}, {"prompt": "3 birds"}], indent=2),
        ),
        ("x.json", json.dumps(["a cat, red", "a dog", "3 birds"], indent=4)),
        ("x.csv", 'prompt\n"a cat, red"\na dog\n\n3 birds\n'),
        ("x.CSV", '\ufeffid,prompt,style\r\n1,"a cat, red",oil\r\n2,a dog,ink\r\n3,3 birds,\r\n'),
    ],
)
def test_indented_json_and_csv_are_the_prompts_that_they_hold(tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    prompts = load(tmp_path / name)
    assert prompts == replace(load(written(tmp_path, "same.txt", "a cat, red", "a dog", "3 birds")), name="x")


@pytest.mark.silent
def test_a_csv_may_say_which_split_a_prompt_belongs_to(tmp_path):
    prompts = load(written(tmp_path, "x.csv", "split,prompt", "eval,a", "train,b", "train,c"))
    assert (prompts.train, prompts.eval) == (("b", "c"), ("a",))


@pytest.mark.silent
@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "x.csv",
            ["prompt", "a cat, red", "a dog"],
            "line 2 has 2 cells, the header 1: put prompts with commas",
        ),
        ("x.csv", ["prompt,split", "a cat,train", "a dog"], "line 3 has 1 cells, the header 2"),
        ("x.csv", ["prompt,splits", "a,train", "b,eval"], "Did you mean 'split'"),
        ("x.csv", ["prompt,Split", "a,train", "b,eval"], "Did you mean 'split'"),
        ("x.csv", ["prompt,split", "a,train", "b,"], "split must be 'train' or 'eval', not ''"),
        ("x.csv", ["Prompts,Category", "a,b"], "`prompt` once; it has: Prompts, Category"),
        ("x.csv", ["prompt;split", "a;train"], "it has: prompt;split"),
        ("x.csv", ["prompt,prompt", "a,b"], "it has: prompt, prompt"),
        ("x.csv", ["a cat", "a dog"], "it has: a cat"),
        ("x.csv", ["prompt", '"a cat', "a dog"], "not a CSV table"),
        ("x.json", ['{"train": ["a"], "eval": ["b"]}'], "expected a list"),
        ("x.json", ['[{"prompt": "a"}, {"text": "b"}]'], "entry 2: text: unknown key"),
        ("x.json", ['[{"prompt": "a"}, 3]'], "entry 2 is not an object"),
        ("x.json", ['["a", "b"'], "is not JSON"),
        ("x.jsonl", ['{"prompt": "a", "prompt": "b"}', '{"prompt": "c"}'], "'prompt' is twice in one object"),
        ("x.tsv", ["prompt\tstyle", "a\toil"], "files like .tsv are not read as prompts"),
        ("x.yaml", ["- a", "- b"], "files like .yaml are not read"),
        ("x.md", ["- a", "- b"], "files like .md are not read"),
        ("x.parquet", ["PAR1"], "files like .parquet are not read"),
        ("x.txt", ["[", '  "a",', '  "b"', "]"], "line 1 is no prompt but looks like JSON"),
        ("x.txt", ['{"prompt": "a"}', '{"prompt": "b"}'], "looks like JSON"),
        ("x.txt", ["prompt", "a", "b"], "line 1 is no prompt but looks like the header of a table"),
        ("x.txt", ["id,Prompt,style", "1,a,b", "2,c,d"], "header of a table"),
        ("x.txt", ['"prompt";"split"', '"a";"train"'], "header of a table"),
        ("x.txt", ["prompts:", "  - a", "  - b"], "header of a table"),
        ("x.txt", ["a", "b\toil"], "line 2 is no prompt but looks like a table with tabs"),
        ("x.txt", ["- a", "- b"], "list of YAML or Markdown"),
    ],
)
def test_a_table_or_structured_text_never_becomes_prompts_line_by_line(tmp_path, name, lines, message):
    with pytest.raises(BenchError) as error:
        load(written(tmp_path, name, *lines))
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.silent
def test_prompts_that_only_mention_such_words_stay_prompts(tmp_path):
    lines = ["a prompt, painted", "caption, in oil, of a cat", "text", "a [red] {cube}", "- a dash"]
    prompts = load(written(tmp_path, "x.txt", *lines))
    assert sorted(prompts.train + prompts.eval) == sorted(lines)
