#!/usr/bin/env bash
# The tuning of the demo's methods, the same effort for each: two learning rates, then one variant at the larger one.
# A seed and held-out prompts that the demo does not use. Results: results/tuning, discussed in docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
tune=("$python" -m bench run --config tuning --no-report
      --set rlr.train.steps=25 --set ddpo.train.steps=17 --set alignprop.train.steps=38
      --set vader.train.steps=44 --set zo-antithetic.train.steps=38 --set truncated_bp.train.steps=40
      --set train.eval_every=null)
published=(--set truncated_bp.k=1 --set vader.mode=last)
"${tune[@]}" --set train.lr=1e-3 "${published[@]}"
"${tune[@]}" --set train.lr=3e-3 "${published[@]}"
"${tune[@]}" --set train.lr=3e-3 --set truncated_bp.k=5 --set alignprop.truncation=mask --set vader.mode=rand \
    --set zo-antithetic.scale=1e-2 --set rlr.antithetic=true --set rlr.shared=true --set ddpo.log_prob=sum --set ddpo.clip=0.1
"$python" -m bench report results/tuning
