"""Every mutant of mutants.yaml against its tests: ``python -m tests.mutants [part=1/3] [jobs=2] [only=<text>,<text>]``.

A mutant is a mistake put in on purpose; a test that was written against it has to fail. The repository is copied, so
nothing is changed here. Exit code 1 if a mutant survives, if its old text is not there exactly once, or if its tests
fail without it. Each is tried in a fork of a process that has imported the libraries, and nothing of ours, once. ``only``
takes the mutants whose name, file or tests have one of these texts in them.
"""

import importlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CPU_SECONDS = 120
"""A file of tests that computes for longer is in a loop that does not end; a busy machine does not make it fail."""
LIBRARIES = "torch transformers tensordict ray hypothesis scipy.stats pandas plotly.express pydantic msgspec omegaconf"
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Mutant:
    """``old`` in ``file`` becomes ``new``; at least one of ``tests`` (pytest's names, separated by spaces) fails."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def where(self) -> str:
        """What it is found by."""
        return f"{self.name} {self.file} {self.tests}"

    def problem(self) -> str:
        """Why it cannot be tried; empty if it can."""
        count = (ROOT / self.file).read_text().count(self.old)
        return "" if count == 1 else f"its old text is in {self.file} {count} times"


def mutants() -> list[Mutant]:
    """All of them."""
    return [Mutant(**one) for one in yaml.safe_load((Path(__file__).parent / "mutants.yaml").read_text())]


def run(folder: Path, name: str, file: str, text: str, tests: list[str]) -> BaseProcess:
    """Start the tests in a copy of the repository in which ``file`` holds ``text``; the exit code is pytest's."""
    copy = folder / name.replace("/", " ")
    shutil.copytree(folder / ORIGINAL, copy)
    (copy / file).write_text(text)
    process = FORK.Process(target=_run, args=(copy, tests))
    process.start()
    return process


def _run(copy: Path, tests: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS * len(tests),) * 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "mifo_verl")]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore", *tests])
    os._exit(code)


ORIGINAL = "original"
WORDS = {0: "SURVIVED", 1: "killed", -9: "killed"}  # -9: by its limit of computing


def main(part: str = "1/1", jobs: str = "2", only: str = "") -> int:
    """The exit code; a line a mutant."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for library in LIBRARIES.split():
        importlib.import_module(library)
    number, parts = map(int, part.split("/"))
    chosen = [one for one in mutants() if any(text in one.where for text in only.split(","))][number - 1 :: parts]
    if not chosen:
        print(f"no mutant has {only} in its name, file or tests")
        return 1
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file in (file for file in files if file.startswith(COPIED) and (ROOT / file).exists()):
            (folder / ORIGINAL / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / ORIGINAL / file)
        nothing, tests = chosen[0].file, sorted({test for one in chosen for test in one.tests.split()})
        unchanged = run(folder, "unchanged", nothing, (ROOT / nothing).read_text(), tests)
        unchanged.join()
        if unchanged.exitcode:
            print(f"the tests fail without any mutant (pytest's exit code {unchanged.exitcode})")
            return 1
        killed, tried, left, running = 0, 0, list(chosen), dict[BaseProcess, Mutant]()
        while left or running:
            while left and len(running) < int(jobs):
                one = left.pop(0)
                if problem := one.problem():
                    tried += 1
                    print(f"[{tried}/{len(chosen)}] {one.name}: {problem}", flush=True)
                    continue
                changed = (ROOT / one.file).read_text().replace(one.old, one.new)
                running[run(folder, one.name, one.file, changed, one.tests.split())] = one
            wait([process.sentinel for process in running])
            for process, one in list(running.items()):
                if not process.is_alive():
                    process.join()
                    word = WORDS.get(process.exitcode, f"its tests could not run ({process.exitcode})")
                    tried += 1
                    print(f"[{tried}/{len(chosen)}] {word}: {one.name}", flush=True)
                    killed += word == "killed"
                    del running[process]
    print(f"{killed} of {len(chosen)} mutants killed")
    return int(killed < len(chosen))


COPIED = ("mifo_verl/", "tests/", "trainer_configs/", "docs/", "README.md", "pyproject.toml")

if __name__ == "__main__":
    sys.exit(main(**dict(argument.split("=", 1) for argument in sys.argv[1:])))
