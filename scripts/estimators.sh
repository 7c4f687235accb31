#!/usr/bin/env bash
# The measurements of docs/estimators.md: results/race, results/estimators. About 45 minutes on 2 slow cores.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
"$python" -m bench run --config race
"$python" -m examples.seconds_to_target results/race --gain 0.02
trained=$(ls -d results/race/cells/full_bp-tiny-clip-s0-*)
profile=("$python" -m bench gradients --out results/estimators)
backpropagation=full_bp,truncated_bp,rlr-fo,truncated-bp-weighted,alignprop,vader,refl
others=reinforce,reinforce-cv,ddpo,rlr,rlr-no-zo,rlr-no-ho,rlr-shared,rlr-antithetic,rlr-resampled,rlr-cv
others=$others,rlr-authors-code,zo,zo-antithetic
"${profile[@]}" --methods "$backpropagation,$others" --budget 11m
"${profile[@]}" --methods "$backpropagation,reinforce,reinforce-cv,ddpo,rlr,zo-antithetic" --at "$trained" --budget 6m
