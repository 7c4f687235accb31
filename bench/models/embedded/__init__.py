"""The embedded models: a small Stable Diffusion, a video and a flow-matching model beside it, a CLIP reward.

They ship with the package as ordinary diffusers / transformers directories, which load without a network or a
GPU: `StableDiffusionPipeline.from_pretrained(SD_DIR)`, `TextToVideoSDPipeline.from_pretrained(VIDEO_DIR)`,
`StableDiffusion3Pipeline.from_pretrained(FLOW_DIR, text_encoder_3=None, tokenizer_3=None)` and
`CLIPModel.from_pretrained(CLIP_DIR)`. Importing this module imports no torch. `docs/embedded-model.md` says
how they were made.
"""

from pathlib import Path

WEIGHTS_DIR: Path = Path(__file__).parent / "weights"
SD_DIR: Path = WEIGHTS_DIR / "sd"
CLIP_DIR: Path = WEIGHTS_DIR / "clip"
VIDEO_DIR: Path = WEIGHTS_DIR / "video"
FLOW_DIR: Path = WEIGHTS_DIR / "flow"
