"""No silent wait: what a run waits for is said, an actor that has died or does not answer ends the run with a reason.

The controller's thread waits inside verl; a second thread here times its stages, asks every actor for a sign of life,
and tells what is late. When the run cannot go on it says why, and the wait is ended: between polls of the rollouts by
an exception, elsewhere by ending the controller's process.
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
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from mifo_verl.config import WatchdogConfig

_TICK_SECONDS = 0.5
_PING_SECONDS = 5.0
_LAST_WORDS_SECONDS = 15.0
"""How long the controller's thread may take to end by itself once the run cannot go on."""

logger = logging.getLogger(__name__)


class CannotGoOn(RuntimeError):
    """An actor has died or does not answer, or a stage is over its limit."""


@dataclass
class _Ping:
    """The last question to one actor."""

    handle: Any
    asked: float
    answer: Any
    answered: float = field(default=0.0)


class Watchdog:
    """One a controller. ``say`` takes (kind, text); ``waiting_for`` names the prompts that rollouts are awaited of."""

    def __init__(
        self,
        settings: WatchdogConfig,
        say: Callable[[str, str], None],
        waiting_for: Callable[[], str] = lambda: "",
    ) -> None:
        self.failure: str | None = None
        self._settings = settings
        self._say = say
        self._waiting_for = waiting_for
        self._history: dict[str, list[float]] = defaultdict(list)
        self._stages: list[tuple[str, float]] = []
        self._told = 0.0
        self._pings: dict[str, _Ping] = {}
        self._ended = threading.Event()
        self._failed_at = 0.0

    def start(self, actors: dict[str, Any]) -> None:
        """Begin to watch these actors, by the name that a person knows them by."""
        now = time.monotonic()
        self._pings = {name: _Ping(handle, now, handle.__ray_ready__.remote(), now) for name, handle in actors.items()}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    # ------------------------------------------------------------------ stages, on the controller's thread

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages may hold others."""
        self._stages.append((name, time.monotonic()))
        self._told = 0.0
        try:
            yield
        finally:
            name, began = self._stages.pop()
            self._history[name].append(time.monotonic() - began)

    def raise_if_failed(self) -> None:
        """Raise CannotGoOn where the run was found unable to go on."""
        if self.failure is not None:
            raise CannotGoOn(self.failure)

    def require_alive(self) -> None:
        """Ask every actor now. Raises CannotGoOn where one has died: what it left unfinished must not be recorded."""
        self.raise_if_failed()
        for name, ping in self._pings.items():
            try:
                ray.get(ping.handle.__ray_ready__.remote(), timeout=_PING_SECONDS)
            except RayActorError as error:
                raise CannotGoOn(_has_died(name, error)) from error
            except GetTimeoutError:
                pass  # it lives and is slow to answer, which the watching thread is there for

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
        for name, ping in self._pings.items():
            self._ask(name, ping, now)
        if self.failure is None and self._stages:
            self._judge(*self._stages[-1], now)

    def _ask(self, name: str, ping: _Ping, now: float) -> None:
        ready, _ = ray.wait([ping.answer], timeout=0)
        if not ready:
            return
        try:
            ray.get(ping.answer)
        except RayActorError as error:
            self._fail(_has_died(name, error), now)
            return
        ping.answered = max(ping.answered, ping.asked)
        if now - ping.asked > _PING_SECONDS:
            ping.asked, ping.answer, ping.answered = now, ping.handle.__ray_ready__.remote(), now

    def _judge(self, stage: str, began: float, now: float) -> None:
        waited = now - began
        history = self._history[stage]
        usual = statistics.median(history) if history else None
        late = max(self._settings.floor_seconds, self._settings.factor * (usual or 0.0))
        if waited > self._settings.limit_seconds:
            self._fail(f"{self._late(stage, waited, usual, now)}; mifo.watchdog.limit_seconds is over", now)
        elif waited > max(late, 2 * self._told):
            self._told = waited
            self._say("late", self._late(stage, waited, usual, now))

    def _late(self, stage: str, waited: float, usual: float | None, now: float) -> str:
        silent = [
            f"{name} ({now - ping.answered:.0f} s without an answer)"
            for name, ping in self._pings.items()
            if now - ping.answered > 2 * _PING_SECONDS and not ray.wait([ping.answer], timeout=0)[0]
        ]
        prompts = self._waiting_for() if stage in ("rollout", "validation") else ""
        return (
            f"LATE: {stage} has taken {waited:.0f} s"
            + (f", usually {usual:.0f} s" if usual is not None else ", its first time")
            + (f"; waiting for {prompts}" if prompts else "")
            + (f"; busy or stuck: {', '.join(silent)}" if silent else "; every actor answers")
        )

    def _fail(self, text: str, now: float) -> None:
        self._failed_at = now
        self._say("failed", f"FAILED: {text}")
        self.failure = text


def _has_died(name: str, error: Exception) -> str:
    return f"{name} has died ({' '.join(str(error).split())[:300]})"


def timed(stage: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of an object with a ``watchdog``, timed as a stage."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watchdog.stage(stage):
                return method(self, *args, **kwargs)

        return inside

    return decorate
