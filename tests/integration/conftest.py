"""Runs that several files compare with, made once."""

from pathlib import Path

import pytest

from tests.faults.__main__ import never_killed


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """The run folder of the kill test's run, with two ranks and all probes, that nothing happens to."""
    return never_killed(tmp_path_factory.mktemp("faults"))
