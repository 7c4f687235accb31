"""Decompositions: shipped, from a file, and which step takes which."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.base.errors import BenchError
from bench.data import prompts
from bench.data.prompts import answers
from bench.data.prompts.answers import Stages
from bench.data.prompts.dcot import DcotConfig, digest, instruction, stage_of, stages

PALM = "A realistic open palm facing upward"
CAT = {"prompt": "a cat", "coarse": "a small animal", "mid": "ears and a tail", "fine": "fur"}


@pytest.fixture(autouse=True)
def _no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def written(tmp_path: Path, *lines: object) -> DcotConfig:
    path = tmp_path / "stages.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return DcotConfig(file=path)


def test_every_hand_prompt_has_a_decomposition():
    hand = prompts.load("hand")
    found = stages((*hand.train, *hand.eval), DcotConfig())
    assert list(found) == [*hand.train, *hand.eval]
    for prompt, parts in found.items():
        assert len({prompt, *parts}) == 4


def test_the_papers_are_verbatim():
    assert stages([PALM], DcotConfig())[PALM] == Stages(
        "A single human hand positioned with the palm facing upward",
        "An open palm with fingers naturally spread and relaxed, oriented upward",
        "Detailed skin texture, visible creases on the palm, and natural lighting on fingernails and"
        " knuckles",
    )


def test_shipped_decompositions_say_whose_they_are():
    records = json.loads((Path(prompts.__file__).parent / "data" / "dcot.json").read_text())
    assert {r["prompt"] for r in records if r["source"] == "paper"} == set(prompts.load("hand").train[:3])
    assert {r["source"] for r in records} == {"paper", "ours"}
    assert {r["prompt"] for r in records} == {*prompts.load("hand").train, *prompts.load("hand").eval}


def test_a_file_adds_and_takes_precedence(tmp_path: Path):
    config = written(tmp_path, CAT, "", {**CAT, "prompt": PALM})
    assert stages(["a cat", PALM, "a cat"], config) == {
        "a cat": Stages("a small animal", "ears and a tail", "fur"),
        PALM: Stages("a small animal", "ears and a tail", "fur"),
    }


MISTAKES = {
    "line 1 is not JSON": ("{",),
    "line 1 is not an object": ("[]",),
    "line 2: midd: unknown key. Did you mean 'mid'": (CAT, {**CAT, "midd": "x"}),
    "line 1: 'fine' must be a text that is not empty": ({**CAT, "fine": " "},),
    "line 1: 'mid' must be a text": ({k: v for k, v in CAT.items() if k != "mid"},),
    "line 3 decomposes 'a cat' again": (CAT, "", CAT),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, message: str):
    config = written(tmp_path, *MISTAKES[message])
    with pytest.raises(BenchError) as error:
        stages(["a cat"], config)
    assert str(error.value).startswith(f"{config.file}: {message}")


def test_what_is_missing_is_counted_with_what_to_type():
    with pytest.raises(BenchError) as error:
        stages([PALM, "a cat", "a dog"], DcotConfig())
    text = str(error.value)
    assert "2 of 3 prompts have no decomposition" in text and "'a cat'" in text
    assert "--set dcot.file=" in text and "--set dcot.endpoint=" in text and "--set dcot.llm=" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boundaries": (0.0, 0.5)}, "between 0 and 1"),
        ({"boundaries": (0.5, 0.5)}, "increasing"),
        ({"boundaries": (0.5, 1.0)}, "between 0 and 1"),
        ({"boundaries": (float("nan"), 0.5)}, "finite number"),
        ({"endpoint": "http://127.0.0.1:1/v1"}, "set llm too"),
        ({"endpoint": "127.0.0.1:1", "llm": "m"}, "must be a URL"),
        ({"endpoint": "https://user:key@host/v1", "llm": "m"}, "must hold no key"),
        ({"endpoint": "https://host/v1?key=x", "llm": "m"}, "must hold no key"),
        ({"key": "secret"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        DcotConfig.model_validate(settings)


def test_an_endpoint_may_be_written_in_full():
    written_out = DcotConfig(endpoint="http://host:8000/v1/chat/completions", llm="m")
    assert written_out == DcotConfig(endpoint="http://host:8000/v1/", llm="m")


def test_thirds_of_fifty_steps():
    parts = [stage_of(i, 50) for i in range(50)]
    assert parts == [0] * 17 + [1] * 16 + [2] * 17


@pytest.mark.parametrize("steps", [3, 4, 5, 20, 25, 30, 1000])
def test_every_part_has_steps_and_noise_is_coarse(steps: int):
    parts = [stage_of(i, steps) for i in range(steps)]
    assert parts == sorted(parts) and set(parts) == {0, 1, 2}


def test_boundaries_fall_on_whole_steps_despite_rounding_errors():
    parts = [stage_of(i, 30, (0.1, 0.7)) for i in range(30)]
    assert parts.count(0) == 3 and parts.count(1) == 18


@pytest.mark.parametrize("i", [-1, 10])
def test_a_step_outside_the_chain_is_refused(i: int):
    with pytest.raises(ValueError, match=f"step {i} of 10"):
        stage_of(i, 10)


def test_the_digest_depends_on_every_text_and_not_on_the_order():
    one, two = Stages("a", "b", "c"), Stages("d", "e", "f")
    base = digest({"x": one, "y": two})
    assert base == digest({"y": two, "x": one}) and len(base) == 16 and int(base, 16) >= 0
    others = [
        digest({"x": one}),
        digest({"x": two, "y": one}),
        digest({"x": one, "z": two}),
        digest({"x": one, "y": two._replace(fine="g")}),
    ]
    assert len({base, *others}) == 5


def test_the_instruction_is_the_papers_with_the_prompt():
    text = instruction("a {cat} <b>")
    assert "Here is the original prompt:\na {cat} <b>\n" in text and "<PROMPT>" not in text
    assert text.count("<COMPLETE>") == 3


EXPECTED = Stages("a body", "a shape", "fine-level fur")
READABLE = {
    "as asked": "Coarse-level:\na body\n\nMid-level:\na shape\n\nFine-level:\nfine-level fur\n",
    "on one line": "Coarse-level: a body\nMid-level: a shape\nFine-level: fine-level fur",
    "bold": "**Coarse-level:**\na body\n\n**Mid-level**: a shape\n**Fine-level:** *fine-level fur*",
    "headings": "### Coarse level\na body\n### Middle-level\na shape\n### Fine-level\nfine-level fur",
    "lists": '1. Coarse-scale: "a body"\n2) Mid-scale: “a shape”\n- fine-scale: `fine-level fur`',
    "blank lines": "\n\nCoarse-level:\n\n\na\nbody\n\nMid-level:\n\na shape\n\nFine-level:\n\nfine-level fur",
    "windows": "Coarse-level:\r\na body\r\nMid-level:\r\na shape\r\nFine-level:\r\nfine-level fur\r\n",
    "chatter": "Sure!\n\nCoarse-level: a body\n\nMid-level: a shape\n\nFine-level: fine-level fur\n\nDone.",
    "thoughts": "<think>Coarse-level: no\nFine-level: no</think>Coarse-level: a body\nMid-level: a shape\n"
    "Fine-level: fine-level fur",
    "another order": "Fine-level: fine-level fur\nMid-level: a shape\nCoarse-level: a body",
    "second thoughts": "Coarse-level: x\nMid-level: y\n\nBetter:\nCoarse-level: a body\nMid-level: a shape\n"
    "Fine-level: fine-level fur",
}


@pytest.mark.parametrize("how", READABLE)
def test_an_answer_is_understood_however_it_is_laid_out(how: str):
    assert answers.parse(READABLE[how]) == EXPECTED


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot help with that.",
        "Coarse-level: a\nMid-level: b",
        "Coarse-level: a\nMid-level:\n\nFine-level: c",
        "Coarse-level:\n<COMPLETE>\n\nMid-level:\n<COMPLETE>\n\nFine-level:\n<COMPLETE>",
    ],
)
def test_an_answer_without_three_prompts_is_none(answer: str):
    assert answers.parse(answer) is None
