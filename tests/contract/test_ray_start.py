"""Ray that starts too slowly: what it raises, and what a user reads."""

import inspect

import pytest
from ray._private import node

from mifo_verl.compose import ConfigError
from mifo_verl.run.launch import RAY_IS_LATE, RAY_TRIES, slow_start_in_one_line, with_patience


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


def test_a_ray_that_starts_too_slowly_is_started_again_and_each_time_is_told():
    told: list[str] = []

    def train_after(failures: int) -> int:
        """How often it was begun."""
        begun = 0

        def train() -> None:
            nonlocal begun
            begun += 1
            if begun <= failures:
                raise Exception(RAY_IS_LATE)

        with_patience(train, lambda kind, text: told.append(f"{kind}: {text}"))
        return begun

    assert (train_after(0), told) == (1, [])
    assert train_after(RAY_TRIES - 1) == RAY_TRIES == 3
    assert told == [
        f"restart: Ray has not started within 30 s, and is started again; {left} tries are left" for left in (2, 1)
    ]
    with pytest.raises(ConfigError, match="must start within 30 s"):
        train_after(RAY_TRIES)
