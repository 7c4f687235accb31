#!/usr/bin/env bash
# The tuning of the demo's methods: three learning rates × two variants each, equal seconds, on held-out prompts and a
# seed that the demo does not use. Takes about half an hour on two cores. Results: results/tuning, docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
second=(--set truncated_bp.k=5 --set alignprop.truncation=mask --set vader.mode=rand --set zo.scale=1e-2
        --set rlr.antithetic=true --set rlr.shared=true --set ddpo.log_prob=sum --set ddpo.clip=0.1)
for lr in 3e-4 1e-3 3e-3; do
    "$python" -m bench run --config tuning --no-report --set "train.lr=$lr"
    "$python" -m bench run --config tuning --no-report --set "train.lr=$lr" "${second[@]}"
done
"$python" -m bench report results/tuning
