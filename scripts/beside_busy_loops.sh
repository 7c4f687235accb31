#!/usr/bin/env bash
# The tests several times over while every core is kept busy: none may depend on an idle machine.
#     scripts/beside_busy_loops.sh 10                       # everything
#     scripts/beside_busy_loops.sh 10 tests/run tests/cli   # what starts processes, waits and measures, for the most part
set -euo pipefail
cd "$(dirname "$0")/.."
times=$1
shift
loops=()
trap 'kill "${loops[@]}"' EXIT
for _ in $(seq "$(nproc)"); do
    (while :; do :; done) &
    loops+=($!)
done
for k in $(seq "$times"); do
    echo "run $k of $times"
    .venv/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -q -r fE "$@" | tail -n 5
done
