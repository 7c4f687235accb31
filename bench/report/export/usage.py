"""The lines of Python that draw with an exported LoRA in plain diffusers, as the cell's evaluation does."""

from __future__ import annotations

from bench.experiment.settings import CellConfig
from bench.models.config import SOLVERS, T5, VIDEOS, ModelConfig

SCHEDULERS = {"ddim": "DDIMScheduler", "dpmpp": "DPMSolverMultistepScheduler"}  # else the pipeline's own
EMBEDDED = {"embedded:sd": "SD_DIR", "embedded:video": "VIDEO_DIR", "embedded:flow": "FLOW_DIR"}
DTYPES = {"half": "float16"}
UNSAID = '"BASE_MODEL"'  # where it is a directory of somebody's


def snippet(config: CellConfig, place: str, prompt: str) -> str | None:
    """place: the exported folder, or the repository on the hub that it is in. None for a plugin's family,
    which may be no pipeline of diffusers."""
    model = config.model.config
    if model.family not in SOLVERS:
        return None
    clips, scheduler, where = model.family in VIDEOS, SCHEDULERS.get(model.solver), _where(model)
    names, lines = ["DiffusionPipeline", *([scheduler] if scheduler else [])], list[str]()
    imports = ["import torch", f"from diffusers import {', '.join(sorted(names))}"]
    if clips:
        imports.append("from diffusers.utils import export_to_gif")
    if model.path is None and model.source in EMBEDDED:
        imports.append(f"from bench.models.embedded import {where}")
    if model.family == "video":  # diffusers gives adapters to its UNets of pictures alone
        imports.append("from bench.models.unet3d import Unet3D")
        lines.append(f"unet = Unet3D.from_pretrained({_network(model)}, subfolder='unet', {_dtype(model)})")
    lines.append(f"pipe = DiffusionPipeline.from_pretrained({', '.join([where, *_options(model)])})")
    if scheduler:
        lines.append(f"pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)")
    lines.append(f"pipe.load_lora_weights({place!r})")
    drawn = f"pipe({prompt!r}, {', '.join(_arguments(model))})"
    if clips:
        lines += [f"frames = {drawn}.frames[0]", "export_to_gif(frames, 'clip.gif', fps=8)"]
    else:
        lines += [f"image = {drawn}.images[0]", "image.save('picture.png')"]
    return "\n".join([*imports, "", *lines])


def _where(model: ModelConfig) -> str:
    """What the pipeline is loaded from, as Python."""
    source = model.source or ""
    if model.path is None and source in EMBEDDED:
        return EMBEDDED[source]
    return repr(source.removeprefix("hub:")) if model.path is None and source.startswith("hub:") else UNSAID


def _network(model: ModelConfig) -> str:
    if model.unet_path is None and (model.unet_source or "").startswith("hub:"):
        return repr(str(model.unet_source).removeprefix("hub:"))
    return UNSAID if model.unet_path or model.unet_source else _where(model)


def _dtype(model: ModelConfig) -> str:
    return f"torch_dtype=torch.{DTYPES.get(model.dtype, model.dtype)}"


def _options(model: ModelConfig) -> list[str]:
    """Of loading the pipeline."""
    found = [_dtype(model)]
    from_hub = model.path is None and (model.source or "").startswith("hub:")
    if from_hub and model.revision:
        found.append(f"revision={model.revision!r}")
    if model.variant:
        found.append(f"variant={model.variant!r}")
    if not model.t5 or _where(model) == "FLOW_DIR":  # which has no T5
        found += [f"{T5}=None", "tokenizer_3=None"]
    return [*found, "unet=unet"] if model.family == "video" else found


def _arguments(model: ModelConfig) -> list[str]:
    """What the pipeline is told at every call."""
    found = [f"num_inference_steps={model.steps}", f"guidance_scale={model.guidance:g}"]
    if model.pixels is not None:
        found += [f"height={model.pixels[0]}", f"width={model.pixels[1]}"]
    if model.frames is not None:
        found += [f"num_frames={model.frames}", "output_type='pil'"]
    if model.t5_tokens is not None:
        found.append(f"max_sequence_length={model.t5_tokens}")
    return found
