"""What is installed is all that is there: every package and every file beside the code is named in pyproject.toml."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_installed():
    there = {
        ".".join(file.parent.relative_to(REPOSITORY).parts) for file in (REPOSITORY / "mifo_verl").rglob("__init__.py")
    }
    assert set(SETUPTOOLS["packages"]) == there | {"mifo_verl.trainer_configs"}


def test_every_file_beside_the_code_is_installed():
    named = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = REPOSITORY / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))
        named |= {file for pattern in patterns for file in folder.glob(pattern)}
    there = {
        file
        for folder in ("mifo_verl", "trainer_configs")
        for file in (REPOSITORY / folder).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert there - named == set()


def test_the_gpu_lock_holds_what_the_extra_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "docker" / "gpu.lock.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines)
    asked = [one.partition("[")[0] if "[" in one else one for one in project["dependencies"]]
    pinned = [one.replace("[default]", "").lower().split("==") for one in project["optional-dependencies"]["gpu"]]
    assert {one[0]: pins[one[0]] for one in pinned if len(one) == 2} == dict(one for one in pinned if len(one) == 2)
    assert {re.split("[>=]", one)[0].lower().replace("_", "-") for one in asked} <= pins.keys()
