#!/usr/bin/env bash
# Install mifo_verl and all it needs into the Python at hand: docker/install.sh cpu|gpu, from the repository's root.
set -euo pipefail

usage="usage: docker/install.sh cpu|gpu   (the pinned lists docker/cpu.lock.txt and docker/gpu.lock.txt)"
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
    # flash-attn builds against the torch that is there, so it comes last: a wheel where PIP_FIND_LINKS has one, else its
    # source, which takes nvcc, MAX_JOBS (8 GB of memory each) and FLASH_ATTN_CUDA_ARCHS
    "${pip[@]}" --no-deps -r <(grep -v "^flash-attn==" docker/gpu.lock.txt)
    "${pip[@]}" "setuptools>=77,<82" wheel packaging ninja psutil
    "${pip[@]}" --no-deps --no-build-isolation "$(grep "^flash-attn==" docker/gpu.lock.txt)"
    "${pip[@]}" --no-deps --no-build-isolation .
    ;;
  *)
    echo "error: $1 must be cpu or gpu; $usage" >&2
    exit 2
    ;;
esac
