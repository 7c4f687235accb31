"""`bench schema`: JSON Schemas of the YAML files, for editors, made from the models that check the files.

Files say only what differs, so of settings nothing is required; what several values have to keep together,
the program checks. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from typer import Argument

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import shipped
from bench.cli import completing
from bench.cli.as_json import tell

Tree = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"


class File(StrEnum):
    """Kinds of YAML files."""

    EXPERIMENT = "experiment"
    WORKLOAD = "workload"
    MODEL = "model"
    METHOD = "method"
    REWARD = "reward"
    PROFILE = "profile"


def schema(
    kind: Annotated[
        File, Argument(metavar="KIND", help="what the file is; profile: of SLURM")
    ] = File.EXPERIMENT,
    name: Annotated[
        str | None,
        Argument(metavar="NAME", help="of the method or reward", autocompletion=completing.anything),
    ] = None,
) -> None:
    """Print the JSON Schema of a YAML file, with which editors complete and check it."""
    if (name is None) is (kind in (File.METHOD, File.REWARD)):
        raise BenchError("schema: method and reward want a NAME after them, the other kinds none")
    tell(of(kind, name or ""))


def of(kind: File, name: str = "") -> Tree:
    """The schema of a kind of file. name: of the method or reward. Raises BenchError for an unknown one."""
    made = SCHEMAS[kind](name)
    title = f"{kind} {name}".strip()
    return {"$schema": DIALECT, **made, "title": f"reward-finetuning-bench: {title}"}


class _Models:
    """Models whose schemas share one table of definitions."""

    def __init__(self, file: type[BaseModel], *others: type[BaseModel]) -> None:
        """file: of the file itself, which keeps what it requires. others: of settings, without duties."""
        unique = list(dict.fromkeys([file, *others]))
        found, shared = models_json_schema([(one, "validation") for one in unique], ref_template=REFERENCE)
        self.references = {one: found[one, "validation"] for one in unique}
        self.definitions: Tree = shared.get("$defs", {})
        kept = {self._name(file)} | self._within(file)
        for key, definition in self.definitions.items():
            if key not in kept:
                definition.pop("required", None)
        self.file = self.definitions.pop(self._name(file))

    def _name(self, model: type[BaseModel]) -> str:
        return self.references[model]["$ref"].rpartition("/")[2]

    def _within(self, model: type[BaseModel]) -> set[str]:
        """Names of the definitions that a file's own model is made of."""
        return set(model.model_json_schema().get("$defs", {}))

    def at(self, **places: Tree) -> Tree:
        """The file's schema with others at some of its keys."""
        for key, tree in places.items():
            own = self.file["properties"][key]
            kept = {name: own[name] for name in ("description", "default", "title") if name in own}
            self.file["properties"][key] = {**tree, **kept}
        return {**self.file, "$defs": self.definitions}


def _object(properties: Tree) -> Tree:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _config(group: registry.Group, name: str) -> type[BaseModel]:
    return registry.load(group, name).Config


def _usable(group: registry.Group) -> Iterable[str]:
    return (name for name, entry in registry.entries(group).items() if entry.problem is None)


def _experiment(_: str) -> Tree:
    from bench.experiment.files import Request, Variation

    models, settings = _with_settings(Request)
    made = models.at(settings=settings)
    models.definitions[Variation.__name__]["properties"]["settings"] = settings
    return made


def _workload(_: str) -> Tree:
    from bench.protocol.workload import Workload

    models, settings = _with_settings(Workload)
    return models.at(settings=settings)


def _with_settings(file: type[BaseModel]) -> tuple[_Models, Tree]:
    """The models of a file that has `settings`, and the schema of these: sections, methods and rewards."""
    from bench.data.prompts.dcot import DcotConfig
    from bench.experiment.settings import EvalConfig, TrainConfig
    from bench.models.config import ModelConfig

    methods = {name: _config("method", name) for name in _usable("method")}
    rewards = {name: _config("reward", name) for name in _usable("reward")}
    fixed = {"train": TrainConfig, "eval": EvalConfig, "model": ModelConfig, "sampler": ModelConfig}
    models = _Models(file, *fixed.values(), DcotConfig, *methods.values(), *rewards.values())
    sections: Tree = {key: models.references[model] for key, model in {**fixed, "dcot": DcotConfig}.items()}
    sections["reward"] = {"type": "object", "description": "the reward that is trained on"}
    sections |= {name: models.references[model] for name, model in rewards.items()}
    for name, model in methods.items():
        own = models.definitions[models.references[model]["$ref"].rpartition("/")[2]]["properties"]
        sections[name] = _object({**own, "train": models.references[TrainConfig]})
    return models, _object(sections)


def _model(_: str) -> Tree:
    from bench.experiment.files import ModelFile
    from bench.experiment.settings import EvalConfig, TrainConfig
    from bench.models.config import ModelConfig

    models = _Models(ModelFile, ModelConfig, TrainConfig, EvalConfig)
    train = models.references[TrainConfig]
    return models.at(
        model=models.references[ModelConfig], train=train, gradients=train, eval=models.references[EvalConfig]
    )


def _method(name: str) -> Tree:
    from bench.experiment.files import MethodBlock
    from bench.experiment.search import Law
    from bench.experiment.settings import TrainConfig

    classes = [one for one in _usable("method") if registry.entries("method")[one].base is None]
    models = _Models(MethodBlock, _config("method", name), TrainConfig, Law)
    block = models.at(method=models.references[_config("method", name)], train=models.references[TrainConfig])
    definitions = block.pop("$defs")
    block = {"anyOf": [block, {"type": "null"}]}
    own: Tree = {
        "base": {"enum": classes, "description": "of a preset: the method that it is settings of"},
        "search": {"type": "object", "additionalProperties": models.references[Law]},
        **dict.fromkeys(("default", *shipped("models")), block),
    }
    return {**_object(own), "$defs": definitions}


def _reward(name: str) -> Tree:
    own = _config("reward", name).model_json_schema()
    own.pop("required", None)
    return own


def _profile(_: str) -> Tree:
    from bench.run.slurm.cluster import Profile, Resources

    models = _Models(Profile, Resources)
    some = {"type": "object", "additionalProperties": models.references[Resources]}
    return models.at(methods=some, models=some, dimensions=some)


SCHEMAS: dict[File, Callable[[str], Tree]] = {
    File.EXPERIMENT: _experiment,
    File.WORKLOAD: _workload,
    File.MODEL: _model,
    File.METHOD: _method,
    File.REWARD: _reward,
    File.PROFILE: _profile,
}
