"""What makes two cells the same cell: the part of their settings that changes numbers."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bench.base.layers import Tree
from bench.experiment.settings import CellConfig

# Where something lies does not change numbers; what lies there is in the digests.
PLACES = ("source", "path", "revision", "unet_source", "unet_path", "unet_revision", "weight_files")
PLACES_IF_GIVEN = ("processor", "tokenizer", "clip")
# Settings that schema version 1 gained later, and the values that mean what there was before them.
LATER: Tree = {"dcot": None}
LATER_OF_TRAIN: Tree = {
    "reward_chunk": None,
    "rollout_batch": None,
    "budget": None,
    "evaluations": 1,
    "deterministic": False,
    "kl": 0.0,
}
SAME_NUMBERS = {"graphs": ("auto", "staged")}  # to the last bit; `joint` differs by rounding
NO_NUMBERS = ("graph_budget", "checkpoint_seconds")
LATER_OF_METHODS: Tree = {"frames": "all", "group": False, "until": 1.0, "balance": "none", "divide": "none"}
LATER_OF_MODELS: Tree = {
    "channels_last": False,
    "compile": False,
    "vae_dtype": "auto",
    "variant": None,
    "frames": None,
    "fps": None,
    "decode_chunk": None,
    "t5": True,
    "t5_tokens": None,
}


def cell_id(config: CellConfig) -> str:
    """Readable name and a hash of what changes numbers: not of places, names, or how far to go."""
    tree = essential(config.model_dump(mode="json"))
    parts = [config.label, slug(config.model.name)]
    if config.training is not None:
        del tree["training"]["train"]["steps"], tree["training"]["train"]["checkpoint_every"]
        parts += [slug(config.training.reward.name), f"s{config.training.seed}"]
    return "-".join([*parts, _hash(tree)])


def base_id(config: Tree) -> str:
    """The id of the base model's cell beside a cell, from that one's config.yaml: of one id, the same
    pictures are drawn before training, and scored in the same way."""
    tree = essential({**config, "training": None})
    return "-".join(["base", slug(config["model"]["name"]), _hash(tree)])


def _hash(tree: Tree) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def essential(config: Tree) -> Tree:
    """A cell's config.yaml without places and names, and without later settings that change nothing."""
    tree = _without(LATER, config)
    tree["model"] = {"config": _placeless(_without(LATER_OF_MODELS, tree["model"]["config"]))}
    tree["eval_rewards"] = [_placeless(choice) for choice in tree["eval_rewards"]]
    if tree["training"] is not None:
        tree["training"] = {**tree["training"], "reward": _placeless(tree["training"]["reward"])}
        method = tree["training"]["method"]
        tree["training"]["method"] = {**method, "config": _without(LATER_OF_METHODS, method["config"])}
        tree["training"]["train"] = _without_later(tree["training"]["train"])
    if "dcot" in tree:
        tree["dcot"] = {"boundaries": tree["dcot"]["boundaries"]}  # its texts are in the digests
    del tree["prompts"]
    return tree


def _without(later: Tree, tree: Tree) -> Tree:
    """A copy without the settings that have their values of before."""
    return {key: value for key, value in tree.items() if key not in later or value != later[key]}


def _without_later(train: Tree) -> Tree:
    """The loop's settings without those that change nothing."""
    return {
        key: value
        for key, value in _without(LATER_OF_TRAIN, train).items()
        if key not in NO_NUMBERS and value not in SAME_NUMBERS.get(key, ())
    }


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _placeless(inner)
            for key, inner in value.items()
            if key not in PLACES and (key not in PLACES_IF_GIVEN or inner is None)
        }
    return [_placeless(inner) for inner in value] if isinstance(value, list) else value


def slug(name: str) -> str:
    """A model's or a reward's name as part of a directory's."""
    kind, colon, rest = name.partition(":")
    last = Path(rest).name if colon and kind in ("path", "hub") else name
    if last.endswith((".yaml", ".yml")):
        last = Path(last).stem
    return re.sub(r"[^A-Za-z0-9_.]+", "_", last).strip("_.") or "model"
