"""Ray that starts too slowly: what it raises, and what a user reads."""

import inspect

import pytest
from ray._private import node

from mifo_verl.compose import ConfigError
from mifo_verl.run.launch import RAY_IS_LATE, slow_start_in_one_line


def test_a_ray_that_starts_too_slowly_is_one_line_and_any_other_failure_stays_as_it_is():
    source = inspect.getsource(node)
    assert RAY_IS_LATE in source and "raylet_start_wait_time_s = 30\n" in source  # no setting that a cure could name
    with pytest.raises(ConfigError) as late, slow_start_in_one_line():
        raise Exception(f"{RAY_IS_LATE}. This could happen because some of the raylet failed to startup.")
    assert late.value.errors == [
        "Ray must start within 30 s, and did not: the machine is too busy; run the same command again when less else "
        "runs on this machine"
    ]
    with pytest.raises(RuntimeError, match="of the run"), slow_start_in_one_line():
        raise RuntimeError("of the run")
