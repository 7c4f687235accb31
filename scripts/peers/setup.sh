#!/usr/bin/env bash
# An environment with TRL in .peers/: packages that both sides use are those of .venv, so their versions are the same.
set -eu
cd "$(dirname "$0")/../.."
test -x .venv/bin/python || { echo "first: make venv" >&2; exit 1; }
.venv/bin/python -m venv .peers
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$(.peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
.peers/bin/pip install --quiet --disable-pip-version-check 'trl==0.23.1'
.peers/bin/python -c 'import torch, trl; print("TRL", trl.__version__, "beside torch", torch.__version__)'
