"""tests/gpu is run by people with GPUs; here its script runs at a tiny size on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "gpu" / "run.sh"


def run(*arguments: str) -> str:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_gpu_checks_pass_at_a_tiny_size_on_a_cpu():
    output = run("--device", "cpu", "--scale", "0.00001")
    for check in ("top share, ties", "top share, distinct", "top share, zeros", "token entropy", "strict freezing"):
        assert check in output
    assert output.endswith("all checks passed\n")


def test_the_gpu_checks_are_skipped_without_a_gpu():
    assert run() == "skipped: no CUDA device\n"
