"""What several unit tests share: shards that are threads of this process, and a finished run."""

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.example_run import ExampleRun, make_data

SHARED = Path(os.environ.get("MIFO_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
"""Real questions by third parties, which are not in this repository; a test that needs them is skipped without."""


class ThreadShards:
    """One thread's end of a ``Shards`` group: every call waits until all threads of the group have made it."""

    def __init__(self, rank: int, barrier: threading.Barrier, slots: list[Tensor | None]) -> None:
        self.rank = rank
        self._barrier = barrier
        self._slots = slots

    def gather(self, counts: Tensor) -> Tensor:
        self._slots[self.rank] = counts.clone()
        self._barrier.wait(timeout=30)
        rows = torch.stack([slot for slot in self._slots if slot is not None])
        self._barrier.wait(timeout=30)
        return rows

    def sum(self, counts: Tensor) -> Tensor:
        return self.gather(counts).sum(dim=0)


def run_over_shards(function: Callable[[ThreadShards], Any], num_shards: int) -> list[Any]:
    """What ``function(shards)`` returns on each shard, in rank order; a shard that raises ends them all."""
    barrier = threading.Barrier(num_shards)
    slots: list[Tensor | None] = [None] * num_shards

    def run(rank: int) -> Any:
        try:
            return function(ThreadShards(rank, barrier, slots))
        except threading.BrokenBarrierError:
            raise
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(num_shards) as pool:
        futures = [pool.submit(run, rank) for rank in range(num_shards)]
    errors = [future.exception() for future in futures]
    for error in sorted((e for e in errors if e), key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


@pytest.fixture(scope="session")
def over_shards() -> Callable[[Callable[[ThreadShards], Any], int], list[Any]]:
    return run_over_shards


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps, which no test may change."""
    folder = tmp_path_factory.mktemp("made")
    return ExampleRun(folder / "run", make_data(folder)).run(12)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be altered."""
    return Path(shutil.copytree(made, tmp_path / "run"))
