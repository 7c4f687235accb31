"""Time per step and peak memory of the model options on a reduced Stable Diffusion 1.4: docs/models.md.

    OMP_NUM_THREADS=1 python scripts/measure_options.py [--device cuda] [--channels C,C,C,C] [--repeats N]

Forward and backward of one guided step of two samples through the UNet, 32×32 latents. Every setting
runs in a process of its own. On a CPU processor time is counted, compilers included: other work on the
machine changes it little.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS: dict[str, dict[str, object]] = {
    "float32": {},
    "float32, channels_last": {"channels_last": True},
    "float32, compile": {"compile": True},
    "float32, gradient_checkpointing": {"gradient_checkpointing": True},
    "half": {"dtype": "half"},
    "half, channels_last": {"dtype": "half", "channels_last": True},
    "half, compile": {"dtype": "half", "compile": True},
    "half, gradient_checkpointing": {"dtype": "half", "gradient_checkpointing": True},
}


def clock(device_name: str) -> float:
    """Seconds: on a GPU of the wall, on a CPU of the processor, of this process and its finished children."""
    return sum(os.times()[:4]) if device_name == "cpu" else time.perf_counter()


def reduced(channels: list[int], scratch: Path) -> Path:
    """SD 1.4's configs with narrower UNet layers."""
    from bench.models.random_weights import architecture

    directory = scratch / "reduced"
    shutil.copytree(architecture("sd14"), directory)
    path = directory / "unet" / "config.json"
    settings = json.loads(path.read_text()) | {"block_out_channels": channels}
    path.write_text(json.dumps(settings))
    return directory


def measure(directory: Path, options: dict[str, object], device_name: str, repeats: int) -> dict[str, float]:
    """Seconds of the first call, median seconds of the later ones, peak gigabytes of the process."""
    import torch

    from bench.engine.chain import State
    from bench.models.config import ModelConfig
    from bench.models.image import ImageChain

    device = torch.device(device_name)
    config = ModelConfig.model_validate({"source": f"random:{directory}", "resolution": 256, **options})
    chain = ImageChain.load(config, device)
    cond = chain.condition(["a cat", "a dog"])
    x = torch.randn(2, *chain.latent_shape, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    for _ in range(repeats + 1):
        started = clock(device_name)
        mean = chain.transition(State(x), 10, cond, torch.zeros(2, device=device)).mean
        torch.autograd.grad(mean.square().sum(), chain.parameters())
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock(device_name) - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"first": seconds[0], "step": sorted(seconds[1:])[repeats // 2], "gigabytes": peak / 1e9}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", default="64,128,256,256")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        options = OPTIONS[arguments.one]
        print(json.dumps(measure(arguments.directory, options, arguments.device, arguments.repeats)))
        return
    print("| options | first step (s) | later steps (s) | peak memory (GB) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        directory = reduced([int(n) for n in arguments.channels.split(",")], Path(scratch))
        for name in OPTIONS:
            command = [sys.executable, __file__, "--one", name, "--directory", str(directory)]
            command += ["--device", arguments.device, "--repeats", str(arguments.repeats)]
            alone = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # a pool's time would not be counted
            done = subprocess.run(
                command, check=True, env=alone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            row = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | {row['first']:.2f} | {row['step']:.2f} | {row['gigabytes']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
