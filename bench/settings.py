"""The typed settings of a run and of one cell of it. `bench.config` fills them from files and flags."""

from typing import Annotated, Any, Literal

from pydantic import Field

from bench.models.config import ModelConfig
from bench.schema import Strict

SCHEMA_VERSION = 1  # of the results directory; docs/results.md


class TrainConfig(Strict):
    """The loop around a method: how many samples, which optimizer, how often to look."""

    steps: int = Field(default=50, ge=1, description="optimizer steps; whole batches")
    prompts_per_step: int = Field(default=4, ge=1, description="different prompts in one batch")
    samples_per_prompt: int = Field(default=2, ge=1, description="samples of each prompt in one batch")
    micro_batch: int = Field(default=8, ge=1, description="samples that go through the network at once")
    optimizer: Literal["adam", "adamw"] = Field(default="adam", description="adamw: decoupled weight decay")
    lr: float = Field(default=5e-4, gt=0, description="learning rate, constant")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Adam's decay rates")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay")
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm; null: any")
    eval_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; null: at the end"
    )
    checkpoint_every: int = Field(default=10, ge=1, description="optimizer steps between checkpoints")

    @property
    def batch(self) -> int:
        """Samples in one batch."""
        return self.prompts_per_step * self.samples_per_prompt


class EvalConfig(Strict):
    """Held-out scoring, the same for every method and for the base model."""

    prompts: int | None = Field(default=None, ge=1, description="so many held-out prompts; null: all")
    skip: int = Field(
        default=0, ge=0, description="held-out prompts passed over first, to tune on others than are reported"
    )
    images_per_prompt: int = Field(default=2, ge=1, description="images of each prompt")
    batch: int = Field(default=8, ge=1, description="images made at once")
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
    eval_rewards: tuple[Choice, ...]
    threads: int = Field(ge=1)
    digests: dict[str, str] = Field(description="what the names stood for: digests of weights and prompts")

    @property
    def label(self) -> str:
        """The method's name, or `base`."""
        return "base" if self.training is None else self.training.method.name


class Request(Strict):
    """An experiment file; flags override its parts, `--set` its settings."""

    methods: tuple[str, ...] | None = Field(
        default=None, description="names; null: all that `bench list` shows, presets included"
    )
    model: str = Field(default="tiny", description="a name, path:directory or hub:org/name")
    reward: str | None = Field(default=None, description="what is trained on; null: the model's default")
    prompts: str | None = Field(default=None, description="a prompt set or a file; null: the model's default")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="one cell per method and seed"
    )
    threads: int = Field(default=1, ge=1, description="CPU threads of each cell")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="as --set: train, eval, model, reward, a method's name"
    )


class ModelFile(Strict):
    """configs/models/<name>.yaml: the model, and what suits it."""

    model: dict[str, Any]
    reward: str = "clip"
    prompts: str = "emoji"
    train: dict[str, Any] = Field(default_factory=dict)
    gradients: dict[str, Any] = Field(default_factory=dict, description="over train, in `bench gradients`")
    eval: dict[str, Any] = Field(default_factory=dict)


class MethodBlock(Strict):
    """One block of configs/methods/<name>.yaml, a method class's or a preset's."""

    method: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
