"""Make the embedded models: `python -m scripts.embedded.train <stage>`.

Stages, in order: fetch, data, tokenizer, vae, reward, unet, export, video, export-video, flow, export-flow,
evaluate, sheet, evaluate-video, strips, evaluate-flow, flow-sheet, naming; `all` runs them one after the
other. Every stage reads and writes the work directory; `reward` and `unet` need only the ones before them and
may run side by side, `video` and `flow` start from the exported image model (or from the one that ships:
`--image`). A stage that was killed continues where its last snapshot left it.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.data.cache import cache_directory
from scripts.embedded.fetch import REGISTRY, fetch

STAGES = (
    "fetch",
    "data",
    "tokenizer",
    "vae",
    "reward",
    "unet",
    "export",
    "video",
    "export-video",
    "flow",
    "export-flow",
    "evaluate",
    "sheet",
    "evaluate-video",
    "strips",
    "evaluate-flow",
    "flow-sheet",
    "naming",
)
DEFAULT_WORK = cache_directory() / "embedded"
STEPS = {"vae": 6500, "reward": 4700, "unet": 5500, "video": 4000, "flow": 5600}
"""Training steps of the shipped weights."""
DECAY = {"reward": 2200, "unet": 3000, "video": 1500}
"""Steps at the end over which the learning rate falls."""
MILESTONES = tuple(range(1000, 20000, 500))
"""Steps whose averaged weights are kept."""


def _log(message: str) -> None:
    print(message, flush=True)


def _fetch(arguments: argparse.Namespace) -> None:
    for path in fetch(arguments.work, arguments.registry):
        _log(str(path))


def _data(arguments: argparse.Namespace) -> None:
    from scripts.embedded.data import build_data

    _log(str(build_data(arguments.work)))


def _tokenizer(arguments: argparse.Namespace) -> None:
    from scripts.embedded.captions import make_tokenizer

    _log(str(make_tokenizer(arguments.work)))


def _vae(arguments: argparse.Namespace) -> None:
    from scripts.embedded.vae import train_vae

    train_vae(arguments.work, arguments.steps or STEPS["vae"], arguments.seed, _log)


def _reward(arguments: argparse.Namespace) -> None:
    from scripts.embedded.clip import train_clip

    steps = arguments.steps or STEPS["reward"]
    train_clip(arguments.work, steps, arguments.seed, _log, MILESTONES, DECAY["reward"])


def _unet(arguments: argparse.Namespace) -> None:
    from scripts.embedded.unet import train_unet

    steps = arguments.steps or STEPS["unet"]
    train_unet(arguments.work, steps, arguments.seed, _log, MILESTONES, DECAY["unet"])


def _export(arguments: argparse.Namespace) -> None:
    from scripts.embedded.assemble import export

    _log(str(export(arguments.work, _weights(arguments), arguments.unet_step, arguments.reward_step)))


def _video(arguments: argparse.Namespace) -> None:
    from scripts.embedded.video import train_video

    steps = arguments.steps or STEPS["video"]
    train_video(arguments.work, _image(arguments), steps, arguments.seed, _log, MILESTONES, DECAY["video"])


def _export_video(arguments: argparse.Namespace) -> None:
    from scripts.embedded.assemble import export_video

    target = _weights(arguments) / "video"
    _log(str(export_video(arguments.work, _image(arguments), target, arguments.video_step)))


def _flow(arguments: argparse.Namespace) -> None:
    from scripts.embedded.flow import train_flow

    steps = arguments.steps or STEPS["flow"]
    train_flow(arguments.work, _image(arguments), steps, arguments.seed, _log, MILESTONES)


def _export_flow(arguments: argparse.Namespace) -> None:
    from scripts.embedded.assemble import export_flow

    target = _weights(arguments) / "flow"
    _log(str(export_flow(arguments.work, _image(arguments), target, arguments.flow_step)))


def _evaluate_flow(arguments: argparse.Namespace) -> None:
    from scripts.embedded.flow_samples import evaluate_flow

    _log(str(evaluate_flow(arguments.work, _weights(arguments), _log)))


def _flow_sheet(arguments: argparse.Namespace) -> None:
    from scripts.embedded.flow_samples import make_flow_sheet

    _log(str(make_flow_sheet(_weights(arguments), arguments.work / "flow-contact-sheet.png")))


def _naming(arguments: argparse.Namespace) -> None:
    from scripts.embedded.flow_samples import make_naming_sheets

    _log(str(make_naming_sheets(_weights(arguments), arguments.work)))


def _evaluate(arguments: argparse.Namespace) -> None:
    from scripts.embedded.evaluate import evaluate

    _log(str(evaluate(arguments.work, _weights(arguments), _log)))


def _evaluate_video(arguments: argparse.Namespace) -> None:
    from scripts.embedded.clips import evaluate_video

    _log(str(evaluate_video(arguments.work, _weights(arguments), _log)))


def _strips(arguments: argparse.Namespace) -> None:
    from scripts.embedded.clips import make_strips

    for path in make_strips(_weights(arguments), arguments.work / "filmstrips.png"):
        _log(str(path))


def _sheet(arguments: argparse.Namespace) -> None:
    from scripts.embedded.sheet import make_sheet

    _log(str(make_sheet(_weights(arguments), arguments.work / "contact-sheet.png")))


_RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "fetch": _fetch,
    "data": _data,
    "tokenizer": _tokenizer,
    "vae": _vae,
    "reward": _reward,
    "unet": _unet,
    "export": _export,
    "video": _video,
    "flow": _flow,
    "export-flow": _export_flow,
    "evaluate-flow": _evaluate_flow,
    "flow-sheet": _flow_sheet,
    "naming": _naming,
    "export-video": _export_video,
    "evaluate": _evaluate,
    "sheet": _sheet,
    "evaluate-video": _evaluate_video,
    "strips": _strips,
}


def _weights(arguments: argparse.Namespace) -> Path:
    return arguments.weights if arguments.weights is not None else arguments.work / "weights"


def _image(arguments: argparse.Namespace) -> Path:
    return arguments.image if arguments.image is not None else _weights(arguments) / "sd"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.embedded.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work directory (%(default)s)")
    parser.add_argument("--weights", type=Path, help="exported weights (default: WORK/weights)")
    parser.add_argument("--steps", type=int, help="training steps, instead of those of the shipped weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--unet-step", type=int, help="export this milestone of the image model, not the last"
    )
    parser.add_argument("--reward-step", type=int, help="export this milestone of the reward, not the last")
    parser.add_argument(
        "--video-step", type=int, help="export this milestone of the video model, not the last"
    )
    parser.add_argument("--flow-step", type=int, help="export this milestone of the flow model, not the last")
    parser.add_argument(
        "--image",
        type=Path,
        help="image pipeline that the video model grows from, and whose decoder and words the flow model has "
        "(default: WEIGHTS/sd)",
    )
    parser.add_argument("--registry", default=REGISTRY, help="npm registry (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.steps is not None and (arguments.steps < 1 or arguments.stage not in STEPS):
        parser.error(f"--steps: a positive number for one of the stages {', '.join(STEPS)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    stages = STAGES if arguments.stage == "all" else (arguments.stage,)
    if set(stages) - {"fetch", "data"}:
        import torch

        torch.set_num_threads(
            1
        )  # numbers depend on it, and two processes use two cores better than two threads
    for stage in stages:
        _RUN[stage](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
