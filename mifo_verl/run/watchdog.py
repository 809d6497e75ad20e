"""No silent wait: what a run waits for is said, an actor that has died or is stopped ends the run with a reason.

The controller's thread waits inside verl; a second thread here reads its stages, asks every actor for a sign of life,
and reports what is late. When the run cannot go on this says why, and the wait is ended: between polls of the rollouts
by an exception, elsewhere by ending the controller's process.
"""

import functools
import logging
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mifo_verl.config import WatchdogConfig
from mifo_verl.run.liveness import Liveness, Lost
from mifo_verl.run.processes import end

START_SECONDS = 300.0
"""Loading a model of some billion parameters and compiling its rollout takes minutes."""

_TICK_SECONDS = 0.5
_LAST_WORDS_SECONDS = 15.0
"""How long the controller's thread may take to end by itself once the run cannot go on."""

logger = logging.getLogger(__name__)


class CannotGoOn(RuntimeError):
    """An actor has died or is stopped, or a stage is over its limit."""


@dataclass
class Stage:
    """One stage that goes on. Times are the monotonic clock's."""

    name: str
    entered: float
    at_least: float
    """It is not late before so many seconds."""
    inside: float = 0.0
    """Seconds of it that went into stages inside it."""
    reported: float = 0.0
    """Its own seconds when it was last reported late."""

    def own(self, now: float) -> float:
        """Its own seconds so far, while no stage inside it goes on."""
        return now - self.entered - self.inside


class Stages:
    """What the controller does now, since when, and how long that usually takes; another thread reads ``current``.

    A stage's seconds are its own, without those of the stages inside it. What is in no stage belongs to the outermost
    one, which ``begins`` opens, so that every wait has a name.
    """

    def __init__(self) -> None:
        self._open: list[Stage] = []
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._steps: list[float] = []
        self._step_began: float | None = None

    def current(self) -> Stage | None:
        """The innermost stage."""
        return next(iter(self._open[-1:]), None)

    def usual(self, name: str) -> float | None:
        """Median of a stage's own seconds so far, None if it has not ended once."""
        return statistics.median(self._seconds[name]) if self._seconds[name] else None

    def usual_step(self) -> float | None:
        """Median of the steps so far, seconds; None before the first has ended."""
        return statistics.median(self._steps) if self._steps else None

    @contextmanager
    def stage(self, name: str, at_least: float = 0.0) -> Iterator[None]:
        """Time a stage, which is not late before ``at_least`` seconds; stages may hold others."""
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


class Watchdog(Stages):
    """One a controller. ``emit`` takes (kind, text) of an event; ``waiting_for`` says what a stage waits for."""

    def __init__(
        self,
        settings: WatchdogConfig,
        emit: Callable[[str, str], None],
        waiting_for: Callable[[str], str] = lambda _: "",
        stacks: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self.failure: str | None = None
        self._failed_at = 0.0
        self._settings = settings
        self._emit = emit
        self._waiting_for = waiting_for
        self._stacks = stacks
        self._actors = Liveness(settings.factor, settings.stopped_seconds, emit)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    # ------------------------------------------------------------------ on the controller's thread

    def watch(self, actors: dict[str, Any]) -> None:
        """Watch these actors too, by the name that a person knows them by."""
        self._actors.watch(actors, time.monotonic())

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def raise_if_failed(self) -> None:
        """Raise CannotGoOn if the run was found unable to go on."""
        if self.failure is not None:
            raise CannotGoOn(self.failure)

    def require_alive(self) -> None:
        """Ask every actor now. Raises CannotGoOn if one has died: what it left unfinished must not be recorded."""
        self.raise_if_failed()
        try:
            self._actors.require_alive()
        except Lost as lost:
            raise CannotGoOn(str(lost)) from lost

    # ------------------------------------------------------------------ watching, on a thread of its own

    def _watch(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            try:
                self._tick(time.monotonic())
            except Exception:
                logger.exception("the watchdog stumbled")

    def _tick(self, now: float) -> None:
        if self.failure is not None:
            if now - self._failed_at > _LAST_WORDS_SECONDS:
                os._exit(1)  # the controller waits for what never comes; the reason is in the run's events
            return
        try:
            self._actors.check(now, self.usual_step() or self._settings.floor_seconds)
        except Lost as lost:
            self._fail(str(lost), with_stacks=lost.stopped is not None)
            if lost.stopped is not None:
                end(lost.stopped)
            return
        if stage := self.current():
            self._judge(stage, now)

    def _judge(self, stage: Stage, now: float) -> None:
        """Report a stage that is late, again at twice the wait; fail one that is over the limit."""
        waited, usual = stage.own(now), self.usual(stage.name)
        late = max(self._settings.floor_seconds, stage.at_least, self._settings.factor * (usual or 0.0))
        if waited <= min(self._settings.limit_seconds, max(late, 2 * stage.reported)):
            return
        taken = f"usually {usual:.0f} s" if usual is not None else "its first time"
        awaited, actors = self._waiting_for(stage.name), self._actors.summary(now)
        parts = [f"LATE: {stage.name} has taken {waited:.0f} s, {taken}", awaited and f"waiting for {awaited}", actors]
        text = "; ".join(filter(None, parts))
        if waited > self._settings.limit_seconds:
            self._fail(f"{text}; mifo.watchdog.limit_seconds is over", with_stacks=True)
        else:
            stage.reported = waited
            self._emit("late", text)

    def _fail(self, text: str, with_stacks: bool) -> None:
        """The run cannot go on, for this reason, whether it can be written down or not."""
        if with_stacks:
            try:
                text += f"; the stacks of all processes: {self._stacks()}"
            except Exception as error:
                text += f"; no stacks ({error})"
        try:
            self._emit("failed", f"FAILED: {text}")
        except Exception:
            logger.exception(f"this could not be recorded: FAILED: {text}")
        finally:
            self._failed_at, self.failure = time.monotonic(), text


def timed(stage: str, at_least: float = 0.0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of an object with a ``watchdog``, timed as a stage."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watchdog.stage(stage, at_least):
                return method(self, *args, **kwargs)

        return inside

    return decorate
