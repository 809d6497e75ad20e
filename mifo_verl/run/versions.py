"""What a run was made with: the versions of Python and of the packages that matter, and this package's sources."""

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mifo_verl.run.journal import METRICS, replace_text

VERSIONS = "versions.json"
SOURCES = "mifo_verl_sources"
"""In ``versions.json``: the digest of the sources; of a run resumed with others, all of them, with ", " between."""
PACKAGES = ("mifo_verl", "verl", "torch", "transformers", "ray", "vllm")
"""Those that decide whether a run goes on bit by bit."""
_PACKAGES = (*PACKAGES, "flash-attn", "tensordict", "TransferQueue", "math-verify")


def record_versions(folder: Path) -> None:
    """Write ``versions.json`` into the run's folder; packages that are not installed are left out."""
    found = {"python": platform.python_version(), SOURCES: ", ".join(_digests(folder / VERSIONS))}
    found |= {name: number for name in _PACKAGES if (number := version_of(name)) is not None}
    replace_text(folder / VERSIONS, json.dumps(found, indent=2) + "\n")


def version_of(package: str) -> str | None:
    """The installed version; None where no distribution has this name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def sources_sha256(package: Path) -> str:
    """Of the names, relative to the package, and the bytes of all its Python files."""
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py")):
        digest.update(f"{name}\0{hashlib.sha256((package / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _digests(versions: Path) -> list[str]:
    """Those that the records of the folder were made with, and that of the sources as they are now."""
    goes_on = versions.exists() and versions.with_name(METRICS).exists()
    held = json.loads(versions.read_text()).get(SOURCES, "") if goes_on else ""
    return list(dict.fromkeys([*filter(None, held.split(", ")), sources_sha256(Path(__file__).parents[1])]))
