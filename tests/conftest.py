"""Every test runs as on a machine without an accelerator and without a model hub, and outside every run."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def outside_a_run() -> Iterator[None]:
    """A launch tells the processes that it starts where their stacks go; the next test is none of them."""
    yield
    os.environ.pop("MIFO_STACKS", None)
