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
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mifo_verl.run.liveness import Liveness, Lost
from mifo_verl.run.processes import end
from mifo_verl.settings import WatchdogConfig

_TICK_SECONDS = 0.5
_REMEMBERED = 101
"""Ends of a stage, and steps, that its usual time is the median of: the newest."""
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
    inside: float = 0.0
    """Seconds of it that went into stages inside it."""
    reported: float = 0.0
    """Its own seconds when it was last reported late."""
    done: str = ""
    """How far it is, in words."""
    moved: float = 0.0
    """Its own seconds when that last changed."""

    def own(self, now: float) -> float:
        """Its own seconds so far, while no stage inside it goes on."""
        return now - self.entered - self.inside


class Stages:
    """What the controller does now, since when, and how long that usually takes; another thread reads ``current``.

    A stage's seconds are its own, without those of the stages inside it. What is in no stage belongs to the outermost
    one, which ``begins`` opens, so that every wait has a name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        """Own seconds of every stage that has ended, in the order of their first ends."""
        self._open: list[Stage] = []
        self._newest: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)
        self._step_began: float | None = None

    def current(self) -> Stage | None:
        return next(iter(self._open[-1:]), None)

    def usual(self, name: str) -> float | None:
        """Median of a stage's own seconds lately, None if it has not ended once."""
        return statistics.median(self._newest[name]) if name in self._newest else None

    def usual_step(self) -> float | None:
        """Median of the steps lately, seconds; None before the first has ended."""
        return statistics.median(self._steps) if self._steps else None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages may hold others."""
        stage = Stage(name, time.monotonic())
        self._open.append(stage)
        try:
            yield
        finally:
            now = time.monotonic()
            self._open.pop()
            self._ends(stage, now)
            if self._open:
                self._open[-1].inside += now - stage.entered

    def begins(self, name: str) -> None:
        """What is in no stage is this from now on. Not to be called inside a stage."""
        now = time.monotonic()
        for stage in self._open:
            self._ends(stage, now)
        self._open = [Stage(name, now)]

    def _ends(self, stage: Stage, now: float) -> None:
        self._newest[stage.name].append(stage.own(now))
        self.seconds[stage.name] += stage.own(now)

    def step_begins(self) -> None:
        """A step begins, and the one before has ended."""
        now = time.monotonic()
        if self._step_began is not None:
            self._steps.append(now - self._step_began)
        self._step_began = now
        self.begins("the rest of the step")


class Watchdog(Stages):
    """One a controller. ``emit`` takes (kind, text) of an event; ``waiting_for`` says what a stage waits for, ``done``
    how far it is; ``show`` takes the words for what goes on, and since when (seconds since 1970), as these change.
    """

    def __init__(
        self,
        settings: WatchdogConfig,
        emit: Callable[[str, str], None],
        waiting_for: Callable[[str], str] = lambda _: "",
        stacks: Callable[[], object] = lambda: None,
        done: Callable[[str], str] = lambda _: "",
        show: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        super().__init__()
        self.failure: str | None = None
        self._failed_at = 0.0
        self._settings = settings
        self._emit = emit
        self._waiting_for = waiting_for
        self._stacks, self._done, self._show = stacks, done, show
        self._shown: tuple[Any, ...] = ()
        self._actors = Liveness(settings.stopped_seconds, emit)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    # ------------------------------------------------------------------ on the controller's thread

    def watch(self, actors: dict[str, Any]) -> None:
        """Watch these actors too, by the name that a person knows them by."""
        self._actors.watch(actors, time.monotonic())

    def end(self) -> None:
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
        if stage := self.current():
            self._look(stage, now)
        usual, settings = self.usual_step(), self._settings
        patience = settings.first_seconds if usual is None else settings.factor * usual
        try:
            self._actors.check(now, usual or settings.floor_seconds, patience)
        except Lost as lost:
            self._fail(str(lost), with_stacks=lost.stopped is not None)
            if lost.stopped is not None:
                end(lost.stopped)
            return
        if stage is not None:
            self._judge(stage, now)

    def _look(self, stage: Stage, now: float) -> None:
        """How far the stage is, noted and shown where it has changed."""
        if (done := self._done(stage.name)) != stage.done:
            stage.done, stage.moved = done, stage.own(now)
        names = [one.name for one in self._open[1:] or self._open]  # the outermost is what is in no stage
        if (shown := (*names, stage.entered, done)) != self._shown:
            self._shown = shown
            self._show(", ".join(filter(None, (": ".join(names), done))), time.time() - (now - stage.entered))

    def _judge(self, stage: Stage, now: float) -> None:
        """Report a stage that is late, again at twice the wait; fail one that is over the limit.

        One whose usual time is not known yet is not late while it gets on.
        """
        waited, usual = stage.own(now), self.usual(stage.name)
        late = stage.moved + self._settings.first_seconds if usual is None else self._settings.factor * usual
        late = max(self._settings.floor_seconds, late)
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


def timed(stage: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of an object with a ``watchdog``, timed as a stage."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watchdog.stage(stage):
                return method(self, *args, **kwargs)

        return inside

    return decorate
