"""The folder of a run that starts: nobody else's while it does, and what was there is kept.

Two locks keep two runs apart. The process of ``mifo_verl.train`` holds the one of the launch from before it touches the
folder until it ends; the controller, which may be on another machine and may outlive that process, holds the one of the
records. A launch waits for both, so that it moves and overwrites nothing of a run that goes on.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from mifo_verl.compose import ConfigError
from mifo_verl.run.journal import METRICS, RunRecords

LAUNCH_LOCK = ".launch.lock"
_POLL_SECONDS = 0.5


class RunFolder:
    """A run's folder, this process's own until it ends."""

    def __init__(self, path: Path, resumes: bool, patience_seconds: float = 60.0) -> None:
        """Take it; a run that was there before goes on, or is moved aside: never mixed with or deleted.

        Raises ConfigError where another run still holds it after so long.
        """
        self.path = path
        deadline = time.monotonic() + patience_seconds
        self._locks = [self._hold(deadline)]
        self._await_controller(deadline)
        if (path / METRICS).exists() and not resumes:
            print(f"{path} held a run; it is now {self._move_aside()}")
            self._locks.append(self._hold(deadline))

    def _hold(self, deadline: float) -> IO[str]:
        """The launch's lock in the folder that has the name now; a launch before this one may rename it meanwhile."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / LAUNCH_LOCK, "a")  # noqa: SIM115  held while this process lives
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same(lock, self.path / LAUNCH_LOCK):
                    return lock
            except OSError:
                if time.monotonic() > deadline:
                    raise _held(self.path) from None
            lock.close()
            time.sleep(_POLL_SECONDS)

    def _await_controller(self, deadline: float) -> None:
        """Wait until no controller holds the records; the one of this run takes them for good later."""
        try:
            RunRecords(self.path).lock(max(0.0, deadline - time.monotonic()))  # released at once
        except RuntimeError:
            raise _held(self.path) from None

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside


def _is_same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _held(path: Path) -> ConfigError:
    return ConfigError(
        f"run_dir={path} must not be used by two runs at a time, and another one holds it; stop that one, or choose "
        "another run_dir"
    )
