"""The embedded models: a small Stable Diffusion, a video model grown from it, and a small CLIP reward.

They ship with the package as ordinary diffusers / transformers directories:
`StableDiffusionPipeline.from_pretrained(SD_DIR)`, `TextToVideoSDPipeline.from_pretrained(VIDEO_DIR)` and
`CLIPModel.from_pretrained(CLIP_DIR)` load them without a network or a GPU. Importing this module imports no
torch. `docs/embedded-model.md` says how they were made.
"""

from pathlib import Path

WEIGHTS_DIR: Path = Path(__file__).parent / "weights"
SD_DIR: Path = WEIGHTS_DIR / "sd"
CLIP_DIR: Path = WEIGHTS_DIR / "clip"
VIDEO_DIR: Path = WEIGHTS_DIR / "video"
