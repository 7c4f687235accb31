"""Scores one dimension with the real `vbench` package, in a process of its own.

`python worker.py REQUEST.json` (keys: `bench.measure.vbench.dimension_run`) writes the file that it
names as "outcome": {"state": "done" | "missing" | "failed", "message", "score", "results", …}. A process that
dies writes none. It is run by path and imports nothing of this project unless the request has a "root", so
that an environment with old packages (scene, the GRiT dimensions) needs VBench alone.

Two things that VBench does silently are not let pass: fetching files (every connection and every wget or git
is refused), and taking a detector that fails for one that sees nothing (its errors are counted).
"""

from __future__ import annotations

import functools
import glob
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import shutil
import sys
import traceback
from argparse import Namespace
from pathlib import Path
from typing import Any

GRIT_MODULE = "vbench.third_party.grit_model"
MAY_LEAVE_OUT = ("color",)  # videos in which the object was not found say nothing about its colour
FETCHERS = ("wget", "git", "curl")


class Missing(Exception):
    """Something that has to be installed first."""


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no connection by Internet, no program that fetches files. Raises RuntimeError."""
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        raise RuntimeError(f"VBench wanted to connect to {arguments[0 if event.endswith('info') else 1]!r}")
    if event == "subprocess.Popen":
        command = arguments[1]
        words = command.split() if isinstance(command, str) else [os.fspath(word) for word in command]
        if words and os.path.basename(words[0]) in FETCHERS:  # noqa: PTH119 - may be bytes
            raise RuntimeError(f"VBench wanted to fetch a file: {' '.join(map(str, words))}")


def check_packages(packages: list[str], limits: dict[str, str]) -> None:
    """Raise Missing for what is not installed, or newer than VBench can do with."""
    absent = [name for name in ["vbench", *packages] if importlib.util.find_spec(name) is None]
    if absent:
        raise Missing(f"not installed: {', '.join(absent)}")
    for name, newest in limits.items():
        found = importlib.metadata.version(name)
        if _numbers(found)[:2] > _numbers(newest):
            raise Missing(f"{name} {found} is installed, VBench needs {newest} or older")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def load(root: str | None, module: str) -> Any:
    """A module of VBench; with a root, through the project's own adjustments to modern packages."""
    if root is None:
        return importlib.import_module(f"vbench.{module}")
    sys.path.append(root)
    return importlib.import_module("rewards.shared.compat").vbench(module)


class Watch:
    """Counts the calls of a method and keeps the errors, which still go to the caller."""

    def __init__(self, owner: Any, method: str) -> None:
        self.calls, self.errors = 0, list[str]()
        original = getattr(owner, method)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            try:
                return original(*args, **kwargs)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                raise

        setattr(owner, method, watched)


def keep_static(request: dict[str, Any], device: str) -> dict[str, str]:
    """VBench's static filter: copies of up to five static videos per prompt into request["videos"]/static.

    Returns what each copy is a copy of. It is written for CUDA; the device is put in from outside.
    """
    import torch

    module = load(request["root"], "cli.static_filter")
    module.DEVICE = device
    place = Path(request["work"]) / "static"
    shutil.rmtree(place, ignore_errors=True)
    arguments = Namespace(
        model=request["raft"],
        videos_path=glob.escape(request["videos"]),  # what it puts "*.mp4" behind
        result_path=str(place),
        store_name="static.json",
        filter_scope="temporal_flickering",
        small=False,
        mixed_precision=False,
        alternate_corr=False,
    )
    plain = torch.load
    torch.load = functools.partial(plain, map_location=device)
    try:
        module.static_filter(arguments)
    finally:
        torch.load = plain
    found = json.loads((place / "static.json").read_text(encoding="utf-8"))
    videos = place / "filtered_videos"
    return {
        str(videos / f"{prompt}-{n}.mp4"): path
        for prompt, entry in found.items()
        for n, path in enumerate(entry["static_path"])
    }


def evaluate(request: dict[str, Any]) -> dict[str, Any]:
    """Run VBench and check what it says. Returns the outcome."""
    check_packages(request["packages"], request["limits"])

    device, name, watch = request["device"], request["dimension"], None
    vbench = load(request["root"], "utils") and sys.modules["vbench"]
    if "detectron2" in request["packages"]:
        watch = Watch(importlib.import_module(GRIT_MODULE).DenseCaptioning, "run_caption_tensor")
    module = load(request["root"], name)
    if name == "human_action" and request["mode"] == "custom_input":
        unknown = without_action(request["names"], module.build_dict())
        if unknown:
            return _failed(unknown)
    scored, copies = request["videos"], {}
    if request["raft"] is not None:
        copies = keep_static(request, device)
        if not copies:
            return _failed("the static filter kept no video: flickering is only scored on static ones")
        scored = str(Path(request["work"]) / "static" / "filtered_videos")
    runner = vbench.VBench(device, request["full_info"], request["work"])
    options: dict[str, Any] = {"mode": request["mode"], "local": True}
    if request["prompts"]:
        options["prompt_list"] = request["prompts"]
    runner.evaluate(videos_path=scored, name=name, dimension_list=[name], **options)
    written = Path(request["work"]) / f"{name}_eval_results.json"
    results = json.loads(written.read_text(encoding="utf-8"))[name]
    return checked(request, results, copies, watch)


def without_action(names: dict[str, str], actions: dict[str, str]) -> str:
    """What to say of videos whose name is no action that UMT knows; empty if there are none.

    names: `ACTION-0.mp4` → the video's own. actions: of Kinetics 400, in lower case.
    """
    known = set(actions.values())
    lost = [
        own
        for link, own in names.items()
        if link.lower().split("-")[0].split("person is ")[-1].split("_")[0] not in known
    ]
    if not lost:
        return ""
    return (
        f"no action of Kinetics 400 in the prompt of {', '.join(sorted(lost)[:3])} ({len(lost)} of "
        f"{len(names)}): prompts should be like 'a person is riding a bike'. No score is kept"
    )


def checked(
    request: dict[str, Any], results: list[Any], copies: dict[str, str], watch: Watch | None
) -> dict[str, Any]:
    """The outcome of a dimension whose evaluation came to its end.

    results: [score, [{"video_path", "video_results"}, …]]. copies: of static videos. watch: of the detector.
    """
    score, rows = float(results[0]), results[1]
    if watch is not None and watch.errors:
        return _failed(
            f"the detector failed on {len(watch.errors)} of {watch.calls} frames, which VBench counts as "
            f"frames without objects; no score is kept. The first error: {watch.errors[0]}"
        )
    if not rows or not math.isfinite(score):
        return _failed(f"VBench scored no video (its score is {score})")
    for row in rows:
        path = copies[row["video_path"]] if row["video_path"] in copies else row["video_path"]
        name = Path(path).name
        row["video_path"] = str(Path(request["source"]) / request.get("names", {}).get(name, name))
    given = len(copies) or request["count"]
    scored = len({row["video_path"] for row in rows})
    if scored < given and request["dimension"] not in MAY_LEAVE_OUT:
        return _failed(f"VBench left out {given - scored} of {given} videos: can they be played?")
    outcome = {"state": "done", "message": "", "score": score, "scored": scored, "results": [score, rows]}
    return outcome


def _failed(message: str) -> dict[str, Any]:
    return {"state": "failed", "message": message}


def main(path: str) -> int:
    """Do what the request says and write the outcome. Exit code 0 if there is a score."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    sys.addaudithook(refuse_network)
    try:
        outcome = evaluate(request)
    except (Missing, ImportError) as error:
        traceback.print_exc()
        outcome = {"state": "missing", "message": str(error)}
    except Exception as error:
        traceback.print_exc()
        outcome = _failed(f"{type(error).__name__}: {error}")
    target = Path(request["outcome"])
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(outcome), encoding="utf-8")
    temporary.replace(target)
    return 0 if outcome["state"] == "done" else 1


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules are not meant to be imported by their bare names
    sys.exit(main(sys.argv[1]))
