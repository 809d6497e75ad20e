"""The rule of the house: data flows one way, the plumbing stands behind it, and nothing of the core knows the tools."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mifo_verl"
PLUMBING = {"verl", "ray", "tensordict", "transfer_queue", "hydra", "omegaconf"}
KNOWS_PLUMBING = {"verl", "cpu", "run", "checks", "probes", "compose", "overrides", "train", "plugin"}
NOUNS = {"types", "errors"}
MAY_IMPORT = {
    "__init__": set(),
    "types": set(),
    "errors": {"types"},
    "method": NOUNS,
    "loop": NOUNS | {"method"},
    "rewards": NOUNS,
    "data": NOUNS | {"rewards"},
    "settings": NOUNS,
    "config": NOUNS | {"method", "settings"},
    "overrides": NOUNS,
    "compose": NOUNS | {"overrides"},
    "cpu": NOUNS | {"loop", "run"},
    "probes": NOUNS | {"method", "data", "loop", "config", "settings", "run", "verl"},
    "run": NOUNS | {"config", "settings", "compose", "loop", "probes", "plugin", "verl"},
    "verl": NOUNS | {"plugin", "method", "loop", "config", "settings", "cpu", "data", "probes", "run"},
    "checks": NOUNS | {"method", "loop", "config", "compose", "overrides", "data", "probes", "rewards", "run", "verl"},
    "plugin": {"run", "cpu", "method", "verl"},
    "train": {"compose", "checks", "cpu", "plugin", "run"},
    "cli": {"compose"},
    "old_names": {"cli"},
}
"""``tools`` stands nowhere: a run that needs one starts it as a process."""
OLD_NAMES = {PACKAGE / "data" / "__main__.py", PACKAGE / "rewards" / "__main__.py"}
"""Packages whose ``python -m`` was a command's name; these two files go with the next release."""
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names if node.module == "mifo_verl"}
    return found


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_direction_of_the_house(file):
    part = part_of(file)
    if part == "tools" or file in OLD_NAMES:
        return
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("mifo_verl.")}
    allowed = MAY_IMPORT[part] | ({part} if part not in ("types", "errors", "config") else set())
    assert ours <= allowed, f"{part} may not import {ours - allowed}"
    if part not in KNOWS_PLUMBING:
        assert not {name.split(".")[0] for name in imports(file)} & PLUMBING


@pytest.mark.parametrize("file", sorted((PACKAGE / "method").glob("*.py")), ids=lambda file: file.name)
def test_method_is_torch_and_the_standard_library(file):
    outside = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"mifo_verl", "torch"}
    assert not outside


def test_the_unit_tests_know_neither_verl_nor_ray():
    """They begin in seconds: each process of theirs would import both."""
    known = {(file.name, name) for file in Path(__file__).parent.glob("*.py") for name in imports(file)}
    roots = {"verl", "ray"}
    assert not {(file, name) for file, name in known if name.removeprefix("mifo_verl.").split(".")[0] in roots}
