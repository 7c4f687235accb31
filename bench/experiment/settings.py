"""The typed settings of a run and of one cell of it. `bench.base.layers` fills them from files and flags."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.base.units import duration, size
from bench.data.prompts.dcot import DcotConfig
from bench.models.config import ModelConfig

SCHEMA_VERSION = 1  # of the results directory; docs/results.md


def _parsed(parse: Callable[[str, str], float], text: str, what: str) -> float:
    try:
        return parse(text, what)
    except BenchError as error:
        raise ValueError(str(error)) from error


def _bytes(value: Any) -> Any:
    """`4GB` as bytes."""
    return _parsed(size, value, "size") if isinstance(value, str) else value


def _time(value: str) -> str:
    """`10m`, checked."""
    _parsed(duration, value, "budget")
    return value


AtOnce = Annotated[int, Field(ge=1)] | Literal["auto"]
Size = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(ge=0)]
Budget = Annotated[int, Field(gt=0)] | Annotated[str, AfterValidator(_time)]


class TrainConfig(Strict):
    """The loop around a method: how many samples, which optimizer, how often to look."""

    steps: int | None = Field(
        default=50,
        ge=0,
        description="optimizer steps; whole batches; 0 for methods that train nothing; null with a budget",
    )
    budget: Budget | None = Field(
        default=None,
        description="what training may spend, in the place of `steps`: forward equivalents (a forward of "
        "the network for a sample counts 1, with classifier-free guidance 2, and its backward twice as "
        "much), or a time of training alone, such as 10m",
    )
    prompts_per_step: int = Field(default=4, ge=1, description="different prompts in one batch")
    samples_per_prompt: int = Field(default=2, ge=1, description="samples of each prompt in one batch")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="samples in one batch, another way to say prompts_per_step; stands over it",
    )
    micro_batch: AtOnce = Field(
        default=8,
        description="samples whose graphs are built at once; auto: the whole batch, halved whenever a GPU's "
        "memory runs out",
    )
    rollout_batch: AtOnce | None = Field(
        default=None,
        description="samples that go through the chain at once where no graph is kept, not fewer than "
        "micro_batch; null: as many",
    )
    reward_chunk: int | None = Field(
        default=None,
        ge=1,
        description="samples that go through decoder and reward at once; null: those of a micro-batch",
    )
    graphs: Literal["auto", "staged", "joint"] = Field(
        default="auto",
        description="auto: keep the rollout's graphs while memory allows, and run the other steps again, for "
        "the same numbers; staged: keep none; joint: keep all, as direct implementations do",
    )
    graph_budget: Size | None = Field(
        default=None, description="what `auto` may keep, such as 4GB; null: what the device has to spare"
    )
    optimizer: Literal["adam", "adamw"] = Field(default="adam", description="adamw: decoupled weight decay")
    lr: float = Field(default=5e-4, gt=0, description="learning rate, constant")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Adam's decay rates")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay")
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm; null: any")
    eval_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between evaluations, besides those of `evaluations`; null with a budget",
    )
    evaluations: int = Field(
        default=1, ge=1, description="so many evaluations, evenly over the training, the last at its end"
    )
    checkpoint_every: int = Field(
        default=10, ge=1, description="optimizer steps between checkpoints, besides those of time"
    )
    checkpoint_seconds: float = Field(
        default=120, ge=0, description="a checkpoint after the batch with which so many seconds have passed"
    )
    kl: float = Field(
        default=0.0,
        ge=0,
        description="weight of the KL to the model that training starts from, summed over steps with noise, "
        "which is subtracted from the reward; 0: none",
    )
    deterministic: bool = Field(
        default=False,
        description="the same bits again on a GPU, too, at the price of slower sums; a CPU gives them anyway",
    )

    @model_validator(mode="before")
    @classmethod
    def _batch_in_prompts(cls, tree: Any) -> Any:
        """batch_size samples are so many prompts of samples_per_prompt each, or fewer samples of one."""
        if not isinstance(tree, Mapping) or "batch_size" not in tree:
            return tree
        size, each = tree["batch_size"], cls.model_fields["samples_per_prompt"].default
        if "samples_per_prompt" in tree:
            each = tree["samples_per_prompt"]
        if not (isinstance(size, int) and isinstance(each, int) and size > 0 and each > 0):
            return tree  # the fields' own checks say what is wrong
        each = min(size, each)
        if size % each:
            raise ValueError(f"batch_size {size} is no multiple of samples_per_prompt {each}")
        return {**tree, "prompts_per_step": size // each, "samples_per_prompt": each}

    @model_validator(mode="before")
    @classmethod
    def _budget_or_steps(cls, tree: Any) -> Any:
        """A budget stands over what files give in steps."""
        if isinstance(tree, Mapping) and tree.get("budget") is not None:
            return {**tree, "steps": None, "eval_every": None}
        return tree

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        if self.steps is None and self.budget is None:
            raise ValueError("neither `steps` nor a `budget`: say how far training goes")
        if self.rollout_batch not in (None, "auto") and self.rollout_batch < self.at_once:
            raise ValueError(
                f"rollout_batch {self.rollout_batch} is smaller than micro_batch {self.micro_batch}: "
                "a rollout holds whole micro-batches"
            )
        return self

    @property
    def least_graphs(self) -> Literal["staged", "joint"]:
        """How graphs are held by a run that has no memory to spare."""
        return "joint" if self.graphs == "joint" else "staged"

    @property
    def at_once(self) -> int:
        """Samples whose graphs are built at once, before any memory ran out."""
        return self.batch if self.micro_batch == "auto" else self.micro_batch

    @property
    def batch(self) -> int:
        """Samples in one batch."""
        return self.prompts_per_step * self.samples_per_prompt

    def untrained(self) -> "TrainConfig":
        """What of it concerns a method that trains nothing: how much is in memory at once."""
        return TrainConfig(
            steps=0,
            micro_batch=self.micro_batch,
            rollout_batch=self.rollout_batch,
            reward_chunk=self.reward_chunk,
            deterministic=self.deterministic,
        )


class EvalConfig(Strict):
    """Held-out scoring, the same for every method and for the base model."""

    prompts: int | None = Field(default=None, ge=1, description="so many held-out prompts; null: all")
    skip: int = Field(
        default=0, ge=0, description="held-out prompts passed over first, to tune on others than are reported"
    )
    images_per_prompt: int = Field(default=2, ge=1, description="images of each prompt")
    batch: AtOnce = Field(
        default=8, description="images made at once; auto: all, halved whenever a GPU's memory runs out"
    )
    seed: int = Field(default=1234, ge=0, description="of the starting noise, shared by all methods")
    samples: int = Field(default=8, ge=0, description="prompts whose first image is kept in samples/")
    rewards: tuple[str, ...] = Field(default=(), description="rewards scored besides the trained one")


class Choice(Strict):
    """A registered name and its full settings."""

    name: str
    config: dict[str, Any]


class ModelChoice(Strict):
    """The model's name as the user gave it, and its full settings."""

    name: str
    config: ModelConfig


class Training(Strict):
    """What distinguishes a trained cell from the base model's."""

    method: Choice
    reward: Choice
    seed: int = Field(ge=0)
    train: TrainConfig


class CellConfig(Strict):
    """Everything that one cell is made of. `training: null` is the base model, evaluated and not trained."""

    schema_version: int = SCHEMA_VERSION
    training: Training | None
    model: ModelChoice
    prompts: str
    eval: EvalConfig
    dcot: DcotConfig | None = None
    eval_rewards: tuple[Choice, ...]
    threads: int = Field(ge=1)
    digests: dict[str, str] = Field(description="what the names stood for: digests of weights and prompts")

    @property
    def trains(self) -> bool:
        """Whether there are optimizer steps: not for the base model, nor for methods that train nothing."""
        return self.training is not None and self.training.train.steps != 0

    @property
    def deterministic(self) -> bool:
        """Whether a GPU is to give the same bits again."""
        return self.training is not None and self.training.train.deterministic

    @property
    def label(self) -> str:
        """The method's name, or `base`."""
        return "base" if self.training is None else self.training.method.name
