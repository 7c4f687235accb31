"""Profiles: what a cell asks of a SLURM cluster, as strict YAML (docs/slurm.md, slurm/profiles)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from bench.base import registry
from bench.base.errors import BenchError, did_you_mean
from bench.base.layers import Layers, Tree, parse_setting, profiles, read_yaml, readable, shipped
from bench.base.strict import Strict
from bench.data.prompts.public import vbench_dimensions
from bench.experiment.settings import CellConfig
from bench.run.slurm.sbatch import OWN_KEYS, Megabytes, Minutes, Options

SECTIONS = ("methods", "models", "dimensions")  # of other resources
LEAST_AFTER_WARNING = 30  # seconds of the warning that a checkpoint may not use


class Resources(Strict):
    """What one cell asks for. Cells that ask for the same share job arrays."""

    partition: str | None = Field(default=None, description="null: the cluster's default")
    account: str | None = Field(default=None, description="who pays")
    qos: str | None = Field(default=None, description="quality of service")
    constraint: str | None = Field(default=None, description="features a node must have, such as v100")
    nodes: int = Field(default=1, ge=1, description="nodes of a cell")
    gpus: int = Field(default=0, ge=0, description="GPUs of a cell on each node; one process runs on each")
    gres: str | None = Field(
        default=None, description="instead of `gpus`, where a type is wanted: gpu:a100:2"
    )
    processes: int | None = Field(
        default=None, ge=1, description="of a cell on each node; null: one for each GPU, one without"
    )
    cpus: int | None = Field(
        default=None, ge=1, description="of a cell on each node; null: the cell's threads × processes"
    )
    mem: Megabytes | None = Field(
        default=None, description="main memory on each node, such as 40GB; 0: all of it"
    )
    time: Minutes = Field(default=240, description="limit, such as 4h; a cell continues in a new job")
    options: Options = Field(
        default_factory=dict,
        description="more options of sbatch by their long names: {reservation: spring, exclusive: true}; "
        "false leaves one out",
    )

    @field_validator("gres")
    @classmethod
    def _counts_gpus(cls, gres: str | None) -> str | None:
        found = None if gres is None else re.fullmatch(r"gpu(:[^:,\d][^:,]*)?(:\d+)?", gres)
        if gres is not None and found is None:
            raise ValueError("expected gpu:TYPE:COUNT; everything else goes under options")
        return gres if found is None or found[2] else f"{gres}:1"

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Resources:
        if self.gres is not None and self.gpus:
            raise ValueError("say either gpus or gres")
        for option, value in self.options.items():
            if value is False or option not in OWN_KEYS:
                continue
            if option not in ("mem-per-cpu", "mem-per-gpu"):
                raise ValueError(f"options.{option}: the profile's key {OWN_KEYS[option]} says this")
            if self.mem is not None:
                raise ValueError(f"mem and options.{option} exclude each other: make one of them null")
        return self

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a cell on each node."""
        return self.gpus if self.gres is None else int(self.gres.rpartition(":")[2])

    @property
    def processes_per_node(self) -> int:
        """Processes of a cell on each node."""
        return self.processes or max(1, self.gpus_per_node)

    def for_one_process(self) -> Resources:
        """The same on one node for one process, which uses one GPU at most."""
        gres = self.gres if self.gres is None else f"{self.gres.rpartition(':')[0]}:1"
        return self.model_copy(update={"nodes": 1, "processes": 1, "gpus": min(1, self.gpus), "gres": gres})


class Profile(Resources):
    """A cluster: what a cell asks for, by default and for some methods and models, and how jobs start."""

    max_parallel: int | None = Field(default=None, ge=1, description="cells that run at once; null: any")
    warning: int = Field(
        default=120,
        ge=30,
        description="seconds before the time limit, and at preemption, at which a cell is told to write a "
        "checkpoint: more than a step of its chain takes, or decoder and rewards",
    )
    requeue: bool = Field(
        default=True,
        description="a cell that was warned goes back into the queue, as long as it gets further",
    )
    setup: tuple[str, ...] = Field(default=(), description="shell lines before the cell: module load cuda")
    python: str | None = Field(
        default=None,
        description="the command that starts Python: of another environment, or in a container "
        "(apptainer exec --nv bench.sif python); null: the one that submits",
    )
    srun: tuple[str, ...] = Field(
        default=(), description="more options of srun, such as those of a container"
    )
    dependency: str | None = Field(
        default=None, description="of all arrays, such as afterok:123; cancelled if it cannot hold any more"
    )
    report: bool = Field(default=True, description="a last job builds the report when all cells have ended")
    methods: dict[str, Tree] = Field(default_factory=dict, description="other resources of these methods")
    models: dict[str, Tree] = Field(default_factory=dict, description="other resources of these models")

    dimensions: dict[str, Tree] = Field(
        default_factory=dict, description="other resources to score these dimensions of VBench"
    )

    def resources(self, config: CellConfig) -> Resources:
        """What a cell asks for: the profile, what it says of the model, of the method (of a preset: of its
        base's, then its own)."""
        entry = registry.entries("method").get(config.label)
        names = [config.label] if entry is None else [n for n in (entry.base, entry.name) if n]
        return self.layered(models=[config.model.name], methods=names)

    def layered(self, **names: list[str]) -> Resources:
        """The profile, and over it what it says of these, section by section: models=["tiny"]."""
        layers = Layers().add("profile", "", self.model_dump(include=set(Resources.model_fields)))
        for section in names:
            _over(layers, "profile", section, getattr(self, section), names[section])
        return layers.build(Resources)


def _over(layers: Layers, origin: str, section: str, blocks: dict[str, Tree], names: list[str]) -> None:
    for name in names:
        if name in blocks:
            tree = blocks[name]
            if {"gpus", "gres"} & tree.keys():
                layers.add(origin, "", {"gpus": 0, "gres": None})
            layers.add(origin, f"{section}.{name}".strip("."), tree)


def load(name: str, changes: tuple[str, ...] = (), option: str = "--profile") -> Profile:
    """A profile by its file, or by the name of a shipped one.

    changes: `mem=80GB` and so on, over it and over what it says of methods and models. option: for messages.
    """
    path = _find(name, option)
    layers = Layers().add(readable(path), "", read_yaml(path))
    return checked(_changed(layers, changes), readable(path))


def again(recorded: dict[str, Any], changes: tuple[str, ...] = ()) -> Profile:
    """A profile as a submission recorded it, with changes."""
    layers = Layers().add("the last submission's profile", "", recorded)
    return checked(_changed(layers, changes), "the last submission's profile")


def _changed(layers: Layers, changes: tuple[str, ...]) -> Layers:
    for text in changes:
        if not re.match(r"[^=.]+=", text):
            raise BenchError(f"--with {text}: expected KEY=VALUE, such as mem=80GB or time=8h")
        _, tree = parse_setting(f"profile.{text}")
        _over(layers, f"--with {text}", "", {"": tree["profile"]}, [""])
        _drop_from_blocks(layers.tree, tree["profile"].keys())
    return layers


def _drop_from_blocks(tree: Tree, keys: Iterable[str]) -> None:
    """What was typed holds for all cells: `retry --with mem=80GB` is for the method that has a block, too."""
    gone = {"gpus", "gres"} if {"gpus", "gres"} & set(keys) else set(keys)
    blocks = [tree[section] for section in SECTIONS if isinstance(tree.get(section), dict)]
    for block in (block for found in blocks for block in found.values() if isinstance(block, dict)):
        for key in gone & block.keys():
            del block[key]


def checked(layers: Layers, origin: str) -> Profile:
    """The profile, each of its blocks tried. Raises BenchError."""
    profile = layers.build(Profile)
    base = profile.model_dump(include=set(Resources.model_fields))
    known = {
        "methods": [*registry.entries("method"), "base"],
        "models": list(shipped("models")),
        "dimensions": list(vbench_dimensions()),
    }
    for section in SECTIONS:
        blocks: dict[str, Tree] = getattr(profile, section)
        for name in blocks:
            outside = section == "models" and (":" in name or name.endswith((".yaml", ".yml")))
            if name not in known[section] and not outside:
                hint = did_you_mean(name, known[section])
                raise BenchError(f"{origin}: {section}.{name}: unknown name.{hint}")
            trial = Layers().add(origin, "", base)
            _over(trial, origin, section, blocks, [name])
            _check_times(trial.build(Resources), profile, f"{origin}: {section}.{name}")
    _check_times(profile, profile, origin)
    return profile


def _check_times(resources: Resources, profile: Profile, where: str) -> None:
    if profile.warning > resources.time * 60 - LEAST_AFTER_WARNING:
        raise BenchError(
            f"{where}: a warning {profile.warning} s before the end leaves nothing of {resources.time} "
            "minutes: make `time` longer, or `warning` shorter"
        )


def _find(name: str, option: str) -> Path:
    places = profiles()
    if name in places:
        return places[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    raise BenchError(
        f"{option} {name}: neither a YAML file nor a shipped profile.{did_you_mean(name, list(places))} "
        f"Known: {', '.join(places)}"
    )
