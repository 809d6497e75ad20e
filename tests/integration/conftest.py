"""A run that several files compare with, made once for all of pytest's processes."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.faults.__main__ import never_killed


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, worker_id) -> Path:
    """The run folder of the kill test's run, with two ranks and all probes, that nothing happens to."""
    base = tmp_path_factory.getbasetemp()
    out = (base if worker_id == "master" else base.parent) / "faults"
    with FileLock(f"{out}.lock"):
        return never_killed(out)
