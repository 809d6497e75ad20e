#!/usr/bin/env bash
# The checks of mifo_verl.method at full size on NVIDIA GPUs. Needs torch alone: no verl, ray or pytest.
# `tests/gpu/run.sh --scale 0.1` for a smaller GPU, `--device cpu --scale 0.0001` to try the script without one.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" tests/gpu/check_gpu.py "$@"
