"""What a run was made with: the versions of Python, of the packages that matter, and of this package."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mifo_verl.report.run import VERSIONS

_PACKAGES = (
    "mifo_verl",
    "verl",
    "torch",
    "transformers",
    "ray",
    "vllm",
    "flash-attn",
    "tensordict",
    "TransferQueue",
    "math-verify",
)


def record_versions(folder: Path) -> None:
    """Write ``versions.json`` into the run's folder; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    (folder / VERSIONS).write_text(json.dumps(found, indent=2) + "\n")
