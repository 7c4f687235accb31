"""What the YAML files of experiments, models and methods hold."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from bench.base import units
from bench.base.errors import BenchError
from bench.base.strict import LARGEST, Strict


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _seeds(value: Any) -> Any:
    """Texts such as `0-4` as numbers. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return units.numbers(value, "seeds")
    except BenchError as error:
        raise ValueError(str(error).removeprefix("seeds: ")) from error


def _each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if (again := units.repeated(seeds)) is not None:
        raise ValueError(f"{again} is there twice")
    return seeds


Texts = tuple[str, ...]
Names = Annotated[Texts, BeforeValidator(_several, json_schema_input_type=str | Texts), Field(min_length=1)]
Numbers = tuple[Annotated[int, Field(ge=0, le=LARGEST)], ...]
Seeds = Annotated[
    Numbers,
    BeforeValidator(_seeds, json_schema_input_type=Numbers | str),
    Field(min_length=1),
    AfterValidator(_each_once),
]
SEEDS = "one cell per method and seed: a list, or a text with ranges such as 0-4 or 0-2,7"


class Variation(Strict):
    """One of an experiment's `runs`: what it leaves out is the experiment's."""

    methods: tuple[str, ...] | None = Field(default=None, description="names")
    model: Names | None = Field(default=None, description="one or several")
    reward: Names | None = Field(default=None, description="one or several")
    prompts: Names | None = Field(default=None, description="one or several")
    seeds: Seeds | None = Field(default=None, description=SEEDS)
    dcot: bool | None = Field(default=None, description="other prompts for coarse, middle and fine steps")
    settings: dict[str, Any] = Field(default_factory=dict, description="over the experiment's")


class Request(Strict):
    """An experiment file; flags override its parts, `--set` its settings.

    Every model is combined with every prompt set, every reward, every method and every seed.
    """

    methods: tuple[str, ...] | None = Field(
        default=None, description="names; null: all that `bench list` shows, presets included"
    )
    model: Names = Field(
        default=("tiny",), description="names, path:directory or hub:org/name; one or several"
    )
    reward: Names | None = Field(
        default=None,
        description="what is trained on, one or several; null: the model's default. "
        "A sum: hpsv2:1,aes:0.5. A function of yours: python:module.function",
    )
    prompts: Names | None = Field(
        default=None, description="prompt sets or files, one or several; null: the model's default"
    )
    seeds: Seeds = Field(default=(0,), description=SEEDS)
    threads: int | None = Field(default=None, ge=1, description="CPU threads of each cell; null: the model's")
    dcot: bool = Field(
        default=False,
        description="diffusive chain of thought: other prompts for coarse, middle and fine steps",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="as --set: train, eval, model, sampler, reward, a method's name"
    )
    runs: tuple[Variation, ...] = Field(
        default=(), description="the experiment several times, with differences"
    )


class ModelFile(Strict):
    """configs/models/<name>.yaml: the model, and what suits it."""

    model: dict[str, Any]
    like: str | None = Field(
        default=None,
        description="a shipped model whose blocks in configs/methods apply here, too",
    )
    reward: str = "clip"
    prompts: str = "emoji"
    train: dict[str, Any] = Field(default_factory=dict)
    gradients: dict[str, Any] = Field(default_factory=dict, description="over train, in `bench gradients`")
    eval: dict[str, Any] = Field(default_factory=dict)
    threads: int = Field(default=1, ge=1, description="CPU threads of a cell")
    memory: float | None = Field(default=None, gt=0, description="GiB of main memory of a cell on a CPU")
    stand_ins: dict[str, str] = Field(
        default_factory=dict,
        description="rewards and prompts for those that an experiment made for another model names",
    )


class MethodBlock(Strict):
    """One block of configs/methods/<name>.yaml, a method class's or a preset's."""

    method: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
