"""The rule of the house: data flows one way, and only the bridge knows verl."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mifo_verl"
PLUMBING = {"verl", "ray", "tensordict", "transfer_queue", "hydra", "omegaconf"}
MAY_IMPORT = {
    "types": set(),
    "registry": set(),
    "coordinates": set(),
    "compute": set(),
    "method": {"types", "registry", "coordinates"},
    "rewards": {"types", "registry", "command_line"},
    "data": {"types", "registry", "command_line", "rewards"},
    "generation": {"types"},
    "keyed_lines": set(),
    "command_line": {"registry"},
    "evaluate": {"types", "registry", "command_line", "keyed_lines", "rewards", "data", "generation", "bridge"},
    "demonstrations": {"types", "registry", "command_line", "keyed_lines", "rewards", "data", "generation"},
    "inspect": {"types", "command_line", "method", "bridge"},
    "analyze": {"registry", "command_line", "evaluate", "inspect", "sweep"},
    "sweep": {"registry", "config", "coupling", "flat", "report", "bridge"},
    "ledger": {"types", "data", "bridge"},
    "report": {"types", "command_line", "flat", "inspect", "ledger", "bridge", "coupling", "probe_cost"},
    "config": {"types", "registry", "method"},
    "bridge": {
        "types",
        "registry",
        "method",
        "rewards",
        "data",
        "generation",
        "config",
        "memory",
        "compute",
        "coordinates",
        "coupling",
        "flat",
        "probe_cost",
        "bridge",
        "plugin",
        "inspect",
        "report",
    },
    "plugin": {"bridge"},
    "train": {"bridge", "plugin"},
    "check": {"bridge"},
    "stacks": {"bridge"},
    "memory": set(),
    "coupling": set(),
    "flat": set(),
    "probe_cost": {"compute"},
    "__init__": set(),
}
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
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_direction_of_the_house(file):
    part = part_of(file)
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("mifo_verl.")}
    allowed = MAY_IMPORT[part] | ({part} if part not in ("method", "types", "registry", "config") else set())
    assert ours <= allowed, f"{part} may not import {ours - allowed}"
    if part not in ("bridge", "train", "plugin"):
        assert not {name.split(".")[0] for name in imports(file)} & PLUMBING


@pytest.mark.parametrize("part", ["inspect", "ledger", "report", "analyze"])
def test_what_reads_records_knows_of_the_bridge_its_record_files_alone(part):
    for file in (PACKAGE / part).glob("*.py"):
        bridge = {name for name in imports(file) if name.startswith("mifo_verl.bridge")}
        assert bridge <= {"mifo_verl.bridge.records"}, file


@pytest.mark.parametrize("file", sorted((PACKAGE / "method").glob("*.py")), ids=lambda file: file.name)
def test_method_is_torch_and_the_standard_library(file):
    import sys

    outside = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"mifo_verl", "torch"}
    assert not outside
