"""Every test runs as on a machine without an accelerator and without a model hub, and outside every run."""

import os
import sys
from collections.abc import Iterator
from functools import cache

import omegaconf
import pytest
import yaml

LONGEST = "test_kills.py"

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.update(RAY_enable_open_telemetry="0", RAY_enable_metrics_collection="0")  # docs/start.md


@pytest.fixture(autouse=True)
def outside_a_run() -> Iterator[None]:
    """A launch tells the processes that it starts of their run; the next test is none of them."""
    yield
    os.environ.pop("MIFO_STACKS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: one process runs it while the other has all the rest."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)


def _compose_faster() -> None:
    """The suite composes some thousand configs of the same files: libyaml reads them, and no text is parsed twice."""
    yaml.SafeLoader = yaml.CSafeLoader  # type: ignore[misc]
    parse = omegaconf.grammar_parser.parse
    cached = cache(parse)
    for name, module in list(sys.modules.items()):
        if name.startswith("omegaconf") and getattr(module, "parse", None) is parse:
            module.parse = cached  # type: ignore[attr-defined]


_compose_faster()
