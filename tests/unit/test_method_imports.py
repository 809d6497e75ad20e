"""The rule of the house for method/: torch, the standard library, types and registry, and not one another."""

import ast
import sys
from pathlib import Path

import pytest

import mifo_verl.method

FILES = sorted(Path(mifo_verl.method.__file__).parent.glob("*.py"))
ALLOWED = {"mifo_verl.types", "mifo_verl.registry"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_of_the_method_imports_torch_the_standard_library_types_and_registry_alone(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [node.module]
        else:
            continue
        for module in modules:
            top = module.split(".")[0]
            assert top == "torch" or top in sys.stdlib_module_names or module in ALLOWED, f"{file.name}: {module}"
