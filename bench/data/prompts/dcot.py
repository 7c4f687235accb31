"""Diffusive chain-of-thought: another prompt for the coarse, the middle and the fine steps of a chain.

Source: "Half-order Fine-Tuning for Diffusion Models", arXiv:2502.00639, section 5.3 and Appendix F. The
steps next to the noise are conditioned on a rough outline, those in the middle on the geometry, those next
to the picture on details. A language model writes the three prompts from the original one. The paper used
ChatGPT and shows its instruction (data/dcot_instruction.txt) and three of the five decompositions of its
hand prompts. Of the other two and of the held-out hand prompts they are our own; data/dcot.json says which
is which.

The paper does not say where the three parts of the chain meet: thirds are our choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from bench.base.errors import BenchError, did_you_mean
from bench.base.strict import Strict
from bench.data.prompts import records
from bench.data.prompts.answers import Stages

if TYPE_CHECKING:
    from bench.data.need import Need
    from bench.data.prompts.llm import LanguageModel

DATA = Path(__file__).parent / "data"
PLACEHOLDER = "<PROMPT>"
THIRDS = (1 / 3, 2 / 3)


class DcotConfig(Strict):
    """Where decompositions come from: the file, else those that ship, else a language model."""

    boundaries: tuple[float, float] = Field(
        default=THIRDS, description="ends of the coarse and the middle part, as shares of the chain"
    )
    file: Path | None = Field(
        default=None, description='JSONL of {"prompt": "…", "coarse": "…", "mid": "…", "fine": "…"}'
    )
    endpoint: str | None = Field(
        default=None,
        description="base URL of an OpenAI-compatible server, to which /chat/completions is appended",
    )
    llm: str | None = Field(
        default=None, description="model at the endpoint; without one, a causal LM: directory or hub name"
    )
    key_variable: str = Field(
        default="OPENAI_API_KEY", description="environment variable with the endpoint's key, if it needs one"
    )

    @field_validator("boundaries")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] < value[1] < 1:
            raise ValueError("boundaries must be two increasing shares between 0 and 1, such as [0.3, 0.6]")
        return value

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ValueError("endpoint must be a URL such as https://api.openai.com/v1")
        if "@" in url.netloc or url.query:
            raise ValueError(
                "endpoint must hold no key: settings are stored. Name its variable in key_variable"
            )
        return value.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _complete(self) -> DcotConfig:
        if self.endpoint is not None and self.llm is None:
            raise ValueError("endpoint is given, but not which model to ask there: set llm too")
        return self

    def needs(self, name: str, section: str) -> tuple[Need, ...]:
        """The files of a language model that runs here; needed only for prompts without a decomposition."""
        if self.llm is None or self.endpoint is not None:
            return ()
        from bench.data.prompts.llm import local_need

        return (local_need(self.llm, name, f"{section}.llm"),)


def stage_of(i: int, steps: int, boundaries: tuple[float, float] = THIRDS) -> int:
    """0 coarse, 1 mid, 2 fine: the part of step i = 0 … steps - 1, in sampling order (noise first).

    A part begins at the step nearest to its share of the chain. A short chain may leave a part without steps.
    """
    if not 0 <= i < steps:
        raise ValueError(f"step {i} of {steps}")
    return sum(i >= round(share * steps) for share in boundaries)


def stages(prompts: Iterable[str], config: DcotConfig) -> dict[str, Stages]:
    """The decomposition of each prompt, in the order of the prompts.

    Answers of language models are kept, so that each is asked once. Raises BenchError: malformed file, no
    decomposition and no model to ask, a model that cannot be had or that answers in another format.
    """
    wanted = tuple(dict.fromkeys(prompts))
    here = known(wanted, config)
    absent = tuple(prompt for prompt in wanted if prompt not in here)
    if absent:
        if config.llm is None:
            raise _absent(absent, len(wanted), config)
        here.update(_asked(absent, config.llm, config))
    return {prompt: here[prompt] for prompt in wanted}


def known(prompts: Iterable[str], config: DcotConfig) -> dict[str, Stages]:
    """The decompositions that nobody has to be asked for, in the order of the prompts. Raises BenchError."""
    given = {**_shipped(), **(read_file(config.file) if config.file is not None else {})}
    wanted = tuple(prompts)
    answered = {} if config.llm is None else _answered(wanted, config.llm)
    found = {**answered, **given}
    return {prompt: found[prompt] for prompt in wanted if prompt in found}


def _answered(prompts: Iterable[str], name: str) -> dict[str, Stages]:
    """What the language model of that name answered earlier."""
    from bench.data.prompts import answers

    kept = answers.load()
    keys = {prompt: answers.key(name, template(), prompt) for prompt in prompts}
    return {prompt: kept[key] for prompt, key in keys.items() if key in kept}


def digest(decompositions: Mapping[str, Stages]) -> str:
    """Sixteen hex digits over prompts and their stages, whatever their order."""
    text = json.dumps(sorted((prompt, *parts) for prompt, parts in decompositions.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def instruction(prompt: str) -> str:
    """The paper's instruction to write the three prompts (Figure 11)."""
    return template().replace(PLACEHOLDER, prompt)


@cache
def template() -> str:
    """The instruction, with a placeholder for the prompt."""
    return (DATA / "dcot_instruction.txt").read_text(encoding="utf-8")


def read_file(path: Path) -> dict[str, Stages]:
    """A user's decompositions. Raises BenchError, naming the line, if malformed."""
    path = path.expanduser()
    found: dict[str, Stages] = {}
    for where, record in records.read(path):
        prompt, parts = _record(record, where)
        if prompt in found:
            raise BenchError(f"{where} decomposes {prompt!r} again; give each prompt once")
        found[prompt] = parts
    return found


def _record(record: Mapping[str, Any], where: str) -> tuple[str, Stages]:
    keys = ("prompt", *Stages._fields)
    for key in record:
        if key not in keys:
            raise BenchError(
                f"{where}: {key}: unknown key.{did_you_mean(key, keys)} Known: {', '.join(keys)}"
            )
    for key in keys:
        if key not in record or not isinstance(record[key], str) or not record[key].strip():
            raise BenchError(f"{where}: '{key}' must be a text that is not empty")
    prompt, *parts = (record[key].strip() for key in keys)
    return prompt, Stages(*parts)


@cache
def _shipped() -> dict[str, Stages]:
    records = json.loads((DATA / "dcot.json").read_text(encoding="utf-8"))
    return {r["prompt"]: Stages(r["coarse"], r["mid"], r["fine"]) for r in records}


def _asked(prompts: tuple[str, ...], name: str, config: DcotConfig) -> dict[str, Stages]:
    """What the language model of that name answers; kept."""
    from bench.data.prompts import answers, llm

    model = llm.connect(name, config.endpoint, config.key_variable)
    for prompt in prompts:
        key = answers.key(name, template(), prompt)
        answers.append(key, name, prompt, _decomposed(prompt, model, name))
    return _answered(prompts, name)  # where another process was faster, its answer counts


def _decomposed(prompt: str, model: LanguageModel, name: str) -> Stages:
    from bench.data.prompts import answers

    answer = model.answer(instruction(prompt), again=False)
    parts = answers.parse(answer)
    if parts is None:
        answer = model.answer(instruction(prompt), again=True)
        parts = answers.parse(answer)
    if parts is None:
        raise BenchError(
            f"dcot: twice '{name}' did not answer with a Coarse-level, a Mid-level and a Fine-level prompt"
            f" for {prompt!r}. Its answer begins: {answer[:200]!r}\n"
            "  Try another model (--set dcot.llm=…), or write them yourself: --set dcot.file=FILE.jsonl"
        )
    return parts


def _absent(prompts: tuple[str, ...], of: int, config: DcotConfig) -> BenchError:
    return BenchError(
        f"dcot: {len(prompts)} of {of} prompts have no decomposition into coarse, mid and fine, such as"
        f" {prompts[0]!r}.\n"
        '  Give them, one {"prompt": "…", "coarse": "…", "mid": "…", "fine": "…"} per line:\n'
        "    --set dcot.file=FILE.jsonl\n"
        f"  or let a language model write them, at a server (its key in {config.key_variable}) or here:\n"
        "    --set dcot.endpoint=https://api.openai.com/v1 --set dcot.llm=MODEL\n"
        "    --set dcot.llm=DIRECTORY"
    )
