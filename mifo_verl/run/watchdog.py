"""No silent wait: what a run waits for is said, an actor that has died or is stopped ends the run with a reason.

The controller's thread waits inside verl; a second thread here reads its stages, asks every actor for a sign of life,
and tells what is late. When the run cannot go on this says why, and the wait is ended: between polls of the rollouts by
an exception, elsewhere by ending the controller's process.
"""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mifo_verl.config import WatchdogConfig
from mifo_verl.run.liveness import Lost, SignsOfLife
from mifo_verl.run.processes import end, on_node
from mifo_verl.run.stages import Stage, Stages

START_SECONDS = 300.0
"""Loading a model of some billion parameters and compiling its rollout takes minutes."""

_TICK_SECONDS = 0.5
_LAST_WORDS_SECONDS = 15.0
"""How long the controller's thread may take to end by itself once the run cannot go on."""

logger = logging.getLogger(__name__)


class CannotGoOn(RuntimeError):
    """An actor has died or is stopped, or a stage is over its limit."""


class Watchdog:
    """One a controller. ``say`` takes (kind, text); ``waiting_for`` names the prompts that rollouts are awaited of."""

    def __init__(
        self,
        settings: WatchdogConfig,
        say: Callable[[str, str], None],
        waiting_for: Callable[[str], str] = lambda _: "",
        stacks: Callable[[], object] = lambda: None,
    ) -> None:
        self.failure: str | None = None
        self._failed_at = 0.0
        self._settings = settings
        self._say = say
        self._waiting_for = waiting_for
        self._stacks = stacks
        self._stages = Stages()
        self._actors = SignsOfLife(settings.factor, settings.stopped_seconds, say)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    # ------------------------------------------------------------------ on the controller's thread

    def watch(self, actors: dict[str, Any]) -> None:
        """Watch these actors too, by the name that a person knows them by."""
        self._actors.watch(actors, time.monotonic())

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def stage(self, name: str, at_least: float = 0.0) -> AbstractContextManager[None]:
        """Time a stage, which is not late before ``at_least`` seconds; stages may hold others."""
        return self._stages.stage(name, at_least)

    def begins(self, name: str, at_least: float = 0.0) -> None:
        """What is in no stage is this from now on."""
        self._stages.begins(name, at_least)

    def step_begins(self) -> None:
        """A step begins, and the one before has ended."""
        self._stages.step_begins()

    def raise_if_failed(self) -> None:
        """Raise CannotGoOn where the run was found unable to go on."""
        if self.failure is not None:
            raise CannotGoOn(self.failure)

    def require_alive(self) -> None:
        """Ask every actor now. Raises CannotGoOn where one has died: what it left unfinished must not be recorded."""
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
            self._actors.check(now, self._stages.usual_step() or self._settings.floor_seconds)
        except Lost as lost:
            self._fail(str(lost), with_stacks=lost.stopped is not None)
            if lost.stopped is not None:
                on_node(lost.stopped.node_id, end, lost.stopped)
            return
        if stage := self._stages.current():
            self._judge(stage, now)

    def _judge(self, stage: Stage, now: float) -> None:
        waited, usual = stage.own(now), self._stages.usual(stage.name)
        late = max(self._settings.floor_seconds, stage.at_least, self._settings.factor * (usual or 0.0))
        if waited > self._settings.limit_seconds:
            text = f"{self._late(stage.name, waited, usual, now)}; mifo.watchdog.limit_seconds is over"
            self._fail(text, with_stacks=True)
        elif waited > max(late, 2 * stage.told):
            stage.told = waited
            self._say("late", self._late(stage.name, waited, usual, now))

    def _late(self, stage: str, waited: float, usual: float | None, now: float) -> str:
        awaited, actors = self._waiting_for(stage), self._actors.summary(now)
        return (
            f"LATE: {stage} has taken {waited:.0f} s"
            + (f", usually {usual:.0f} s" if usual is not None else ", its first time")
            + (f"; waiting for {awaited}" if awaited else "")
            + (f"; {actors}" if actors else "")
        )

    def _fail(self, text: str, with_stacks: bool) -> None:
        """The run cannot go on, for this reason, whether it can be written down or not."""
        if with_stacks:
            try:
                text += f"; the stacks of all processes: {self._stacks()}"
            except Exception as error:
                text += f"; no stacks ({error})"
        try:
            self._say("failed", f"FAILED: {text}")
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
