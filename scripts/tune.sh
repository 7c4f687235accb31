#!/usr/bin/env bash
# The tuning of the demo's methods, the same effort for each: three learning rates, then one variant at each of the
# learning rates. Equal seconds of training; a seed and held-out prompts that the demo does not use.
# Results: results/tuning, discussed in docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
variants=(--set truncated_bp.k=5 --set alignprop.truncation=mask --set vader.mode=rand --set zo.scale=1e-2
          --set rlr.antithetic=true --set rlr.shared=true --set ddpo.log_prob=sum --set ddpo.clip=0.1)
for lr in 1e-3 3e-3 3e-4; do
    "$python" -m bench run --config tuning --no-report --set "train.lr=$lr"
done
for lr in 1e-3 3e-3 3e-4; do
    "$python" -m bench run --config tuning --no-report --set "train.lr=$lr" "${variants[@]}"
done
"$python" -m bench report results/tuning
