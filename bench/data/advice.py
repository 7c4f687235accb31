"""What to type to get files that are not here."""

import shlex
from pathlib import Path

from bench.base.errors import BenchError
from bench.data.need import Need

CHECKPOINTS = (".safetensors", ".ckpt")  # of a whole model in one file


def missing(need: Need, why: str, steps: tuple[str, ...] = ()) -> BenchError:
    """The error for files that are not here: why, what helps against that, and the ways to get them."""
    what = "weights" if need.repo_type == "model" else "files"
    ways = [f"  {step}" for step in steps]
    if need.name.partition(" ")[0] in ("model", "reward", "prompts"):
        ways.append(f"  Get them where there is a network:  {bench_command(need)}")
    ways.append(f"  or without this package:            {fetch_command(need)}")
    if need.setting:
        place = "DIRECTORY" if need.setting.endswith((".path", ".llm")) else "path:DIRECTORY"
        ways.append(f"  or point to a local directory:      --set {need.setting}={place}")
    return BenchError(
        "\n".join((f"{what} of {need.place} ({need.name}) are not on this machine ({why}).", *ways))
    )


def bench_command(need: Need) -> str:
    """What to type to have the files, and the others that belong to the same model, reward or prompt set."""
    return f"python -m bench fetch {fetch_flag(need)}"


def fetch_flag(need: Need) -> str:
    """`--model sd14`: which flag of `bench fetch` names what needs the files."""
    kind, _, name = need.name.partition(" ")
    if kind in ("reward", "prompts") and name:
        return f"--{kind} {name.split()[0]}"
    return f"--model {shlex.quote(_model_of(need))}"


def _model_of(need: Need) -> str:
    """The shipped model that has this source, or the source itself, which is a model's name too."""
    from bench.base.layers import read_yaml, shipped

    found: list[
        tuple[int, str]
    ] = []  # number of sources, name: a pipeline alone before one with another UNet
    for name, file in shipped("models").items():
        model = read_yaml(file)["model"]
        sources = [model[key] for key in ("source", "unet_source") if key in model]
        if need.source in sources:
            found.append((len(sources), name))
    return min(found)[1] if found else need.source or "MODEL"


def fetch_command(need: Need) -> str:
    """What to type to have the files, without this package."""
    if need.kind == "url":
        from bench.data.cache import by_hand

        return by_hand(need)
    at = f" --revision {need.revision}" if need.revision else ""
    named = [pattern for pattern in need.files if "*" not in pattern or need.repo_type != "model"]
    wanted = "".join(f" --include {shlex.quote(pattern)}" for pattern in named)
    kind = "" if need.repo_type == "model" else f"--repo-type {need.repo_type} "
    return f"hf download {kind}{need.place}{at}{wanted}"


def how_to_convert(checkpoint: Path) -> str:
    """The command that makes a directory in diffusers' format of a single-file checkpoint."""
    target = checkpoint.with_suffix("")
    return (
        f"  {checkpoint.name} alone may be a single-file checkpoint. This makes a directory of it (SDXL: "
        "StableDiffusionXLPipeline; it fetches configs from the hub):\n"
        f'  python -c "from diffusers import StableDiffusionPipeline as P; '
        f"P.from_single_file('{checkpoint}').save_pretrained('{target}')\"\n"
        f"  and then:  --model path:{target}"
    )
