#!/usr/bin/env bash
# Install mifo_verl and all it needs into the Python at hand: docker/install.sh cpu|gpu, from the repository's root.
set -euo pipefail

usage="usage: docker/install.sh cpu|gpu   (cpu: the pinned list docker/cpu.lock.txt; gpu: the extra [gpu])"
if [[ $# -ne 1 ]]; then
  echo "error: one argument must be given; $usage" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pip=("${PYTHON:-python3}" -m pip install --no-cache-dir)

case "$1" in
  cpu)
    "${pip[@]}" --no-deps -r docker/cpu.lock.txt
    "${pip[@]}" --no-deps --no-build-isolation .
    ;;
  gpu)
    # flash-attn finds torch at build time only if torch is there before it
    "${pip[@]}" "setuptools>=77,<82" wheel packaging ninja psutil torch==2.11.0
    "${pip[@]}" --no-build-isolation ".[gpu]"
    ;;
  *)
    echo "error: $1 must be cpu or gpu; $usage" >&2
    exit 2
    ;;
esac
