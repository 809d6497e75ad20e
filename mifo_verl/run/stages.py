"""What the controller does now, since when, and how long that usually takes.

A stage's seconds are its own, without those of the stages inside it. What is in no stage belongs to the outermost one,
which ``begins`` opens, so that every wait of the controller has a name.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stage:
    """One stage that goes on. Times are the monotonic clock's."""

    name: str
    entered: float
    at_least: float
    """It is not late before so many seconds."""
    inside: float = 0.0
    """Seconds of it that went into stages inside it."""
    told: float = 0.0
    """Its own seconds when it was last reported late."""

    def own(self, now: float) -> float:
        """Its own seconds so far, while no stage inside it goes on."""
        return now - self.entered - self.inside


class Stages:
    """Those of one controller, on whose thread they are entered; another thread reads ``current``."""

    def __init__(self) -> None:
        self._open: list[Stage] = []
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._steps: list[float] = []
        self._step_began: float | None = None

    def current(self) -> Stage | None:
        """The innermost stage."""
        return next(iter(self._open[-1:]), None)

    def usual(self, name: str) -> float | None:
        """Median of a stage's own seconds so far, None where it has not ended once."""
        seconds = self._seconds[name]
        return statistics.median(seconds) if seconds else None

    def usual_step(self) -> float | None:
        """Median of the steps so far, seconds; None before the first has ended."""
        return statistics.median(self._steps) if self._steps else None

    @contextmanager
    def stage(self, name: str, at_least: float = 0.0) -> Iterator[None]:
        """Time a stage inside the one that goes on."""
        stage = Stage(name, time.monotonic(), at_least)
        self._open.append(stage)
        try:
            yield
        finally:
            now = time.monotonic()
            self._open.pop()
            self._seconds[name].append(stage.own(now))
            if self._open:
                self._open[-1].inside += now - stage.entered

    def begins(self, name: str, at_least: float = 0.0) -> None:
        """What is in no stage is this from now on. Not to be called inside a stage."""
        now = time.monotonic()
        for stage in self._open:
            self._seconds[stage.name].append(stage.own(now))
        self._open = [Stage(name, now, at_least)]

    def step_begins(self) -> None:
        """A step begins, and the one before has ended."""
        now = time.monotonic()
        if self._step_began is not None:
            self._steps.append(now - self._step_began)
        self._step_began = now
        self.begins("the rest of the step")
