#!/usr/bin/env bash
# Do the shipped embedded models give the same pictures and scores under older libraries?
#
#   scripts/check_portability.sh [DIRECTORY FOR THE OLD ENVIRONMENT]
#
# Builds a virtual environment with transformers 4.57 + diffusers 0.35.2 (kept if a directory is given), samples
# and scores the same prompts there and in the current environment (PYTHON, default .venv/bin/python), and
# compares. Exit code 0: same within tolerance.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
weights=${WEIGHTS:-$root/bench/models/embedded/weights}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
old=${1:-$scratch/environment}

if [ ! -x "$old/bin/python" ]; then
    "$python" -m venv "$old"
fi
# A CPU build of torch is enough; TORCH_INDEX may name the index to take it from.
torch_version=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
"$old/bin/pip" install --quiet ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    "torch==$torch_version" "diffusers==0.35.2" "transformers>=4.57,<4.58" accelerate

cat > "$scratch/measure.py" <<'PYTHON'
"""Sample and score with plain diffusers and transformers; writes an .npz file."""
import logging
import sys

import diffusers
import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

weights, target = sys.argv[1:]
warnings = []


class Keep(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())


transformers.utils.logging.get_logger("transformers").addHandler(Keep(logging.WARNING))
torch.set_num_threads(1)
prompts = ["a dog face on a blue background", "a small rocket on a black background, twemoji style", "grapes"]
pipeline = StableDiffusionPipeline.from_pretrained(f"{weights}/sd").to(torch.float32)
pipeline.set_progress_bar_config(disable=True)
pictures = []
for guidance in (1.0, 4.0):
    seeds = [torch.Generator().manual_seed(k) for k in range(len(prompts))]
    pictures.append(
        pipeline(prompts, num_inference_steps=20, guidance_scale=guidance, generator=seeds, output_type="np").images
    )
clip = CLIPModel.from_pretrained(f"{weights}/clip").float().eval()
tokenizer = CLIPTokenizer.from_pretrained(f"{weights}/clip")
processor = CLIPImageProcessor.from_pretrained(f"{weights}/clip")
pixels = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2) * 2 - 1
as_bytes = [(picture * 255).round().astype(np.uint8) for picture in np.concatenate(pictures)]
processed = processor(as_bytes, return_tensors="pt")["pixel_values"]
text = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
with torch.no_grad():
    scores = clip(**text, pixel_values=pixels)
np.savez(
    target,
    pictures=np.concatenate(pictures),
    processed=np.asarray(processed),
    ids=text.input_ids.numpy(),
    cosines=(scores.image_embeds @ scores.text_embeds.T).numpy(),
)
print(f"torch {torch.__version__} diffusers {diffusers.__version__} transformers {transformers.__version__}")
bad = [w for w in warnings if "newly initialized" in w or "not used" in w]
if bad:
    sys.exit("weights were not read completely: " + bad[0])
PYTHON

"$python" "$scratch/measure.py" "$weights" "$scratch/new.npz" 2> "$scratch/new.log" || { cat "$scratch/new.log"; exit 1; }
"$old/bin/python" "$scratch/measure.py" "$weights" "$scratch/old.npz" 2> "$scratch/old.log" || { cat "$scratch/old.log"; exit 1; }

"$python" - "$scratch/new.npz" "$scratch/old.npz" <<'PYTHON'
import sys

import numpy as np

new, old = (np.load(path) for path in sys.argv[1:])
tolerance = {"ids": 0, "pictures": 2e-3, "processed": 1.6e-2, "cosines": 1e-3}  # processed: two grey levels
failed = False
for name, limit in tolerance.items():
    difference = float(np.abs(new[name].astype(np.float64) - old[name]).max())
    failed |= not difference <= limit
    print(f"{name:10s} largest difference {difference:.2e}, allowed {limit:.0e}")
print("cosines of the samples with their own prompts:", np.round(new["cosines"][[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]], 3))
sys.exit(failed)
PYTHON
