"""No silent wait: what a run waits for is said, an actor that has died or is stopped ends the run with a reason.

The controller's thread waits inside verl; a second thread here times its stages, asks every actor for a sign of life,
and tells what is late. An actor that is silent may be busy, and is looked at on its node: only one whose process is
stopped is ended for its silence. When the run cannot go on this says why, and the wait is ended: between polls of the
rollouts by an exception, elsewhere by ending the controller's process.
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

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from mifo_verl.bridge.processes import Look, Place, end, look, on_node, place
from mifo_verl.config import WatchdogConfig

_TICK_SECONDS = 0.5
_PING_SECONDS = 5.0
_LAST_WORDS_SECONDS = 15.0
"""How long the controller's thread may take to end by itself once the run cannot go on."""

logger = logging.getLogger(__name__)


class CannotGoOn(RuntimeError):
    """An actor has died or is stopped, or a stage is over its limit."""


@dataclass
class _Ping:
    """The last question to one actor, and what was seen of its process since. Times are the clock's."""

    handle: Any
    asked: float
    answer: Any
    place: Any
    """The Place of its process, or the reference to one that is still to come."""
    look_at: float = 0.0
    """When its process is looked at again, while the question is open."""
    told: float = 0.0
    """Seconds of silence that were told of, 0 where none were."""
    stopped_at: float | None = None
    """When its process was first seen stopped, None where it is not."""


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
        self._settings = settings
        self._say = say
        self._waiting_for = waiting_for
        self._stacks = stacks
        self._history: dict[str, list[float]] = defaultdict(list)
        self._stages: list[tuple[str, float, float]] = []
        self._told = 0.0
        self._steps: list[float] = []
        self._step_began: float | None = None
        self._pings: dict[str, _Ping] = {}
        self._ended = threading.Event()
        self._failed_at = 0.0
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def watch(self, actors: dict[str, Any]) -> None:
        """Watch these actors too, by the name that a person knows them by."""
        now = time.monotonic()
        self._pings = {
            name: _Ping(handle, now, handle.__ray_ready__.remote(), handle.__ray_call__.remote(place))
            for name, handle in actors.items()
        }

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    # ------------------------------------------------------------------ stages, on the controller's thread

    @contextmanager
    def stage(self, name: str, at_least: float = 0.0) -> Iterator[None]:
        """Time a stage, which is not late before ``at_least`` seconds; stages may hold others."""
        self._stages.append((name, time.monotonic(), at_least))
        self._told = 0.0
        try:
            yield
        finally:
            name, began, _ = self._stages.pop()
            self._history[name].append(time.monotonic() - began)

    def step_begins(self) -> None:
        """A step begins, and the one before has ended."""
        now = time.monotonic()
        if self._step_began is not None:
            self._steps.append(now - self._step_began)
        self._step_began = now

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
        for name, ping in list(self._pings.items()):
            self._ask(name, ping, now)
        if self.failure is None and self._stages:
            self._judge(*self._stages[-1], now)

    def _usual_step(self) -> float:
        """Median of the steps so far, seconds."""
        return statistics.median(self._steps) if self._steps else self._settings.floor_seconds

    def _ask(self, name: str, ping: _Ping, now: float) -> None:
        """Take the answer to the last question and ask again; look at an actor that owes one for half a step."""
        silence = now - ping.asked
        if not ray.wait([ping.answer], timeout=0)[0]:
            if silence > self._usual_step() / 2 and now >= ping.look_at:
                self._look_at(name, ping, silence, now)
            return
        try:
            ray.get(ping.answer)
        except RayActorError as error:
            self._fail(_has_died(name, error), now)
            return
        if ping.told:
            self._say("answers", f"{name} answers again")
            ping.told, ping.stopped_at, ping.look_at = 0.0, None, 0.0
        if silence > min(_PING_SECONDS, self._usual_step() / 4):
            ping.asked, ping.answer = now, ping.handle.__ray_ready__.remote()

    def _look_at(self, name: str, ping: _Ping, silence: float, now: float) -> None:
        """Tell of an actor that is stopped, or silent for longer than two steps; end one that stays stopped."""
        seen = self._seen(ping)
        ping.look_at = now + _PING_SECONDS
        if seen is None or not seen.is_stopped:
            ping.stopped_at = None
            ping.look_at = now + max(_PING_SECONDS, silence / 2)
            if silence > max(self._settings.factor * self._usual_step(), 2 * ping.told):
                ping.told = silence
                facts = (
                    "its node says nothing of it" if seen is None else f"{seen.state}, {seen.cpu_seconds:.0f} s of CPU"
                )
                self._say("silent", f"SILENT: {name} has not answered for {silence:.0f} s{_where(ping)} ({facts})")
            return
        text = f"{name} has not answered for {silence:.0f} s: its process is stopped, as by SIGSTOP{_where(ping)}"
        limit = self._settings.stopped_seconds
        if ping.stopped_at is None:
            ping.stopped_at, ping.told = now, silence
            self._say("stopped", f"STOPPED: {text}; continue it, or in {limit:g} s the run ends")
        elif now - ping.stopped_at > limit:
            self._fail(f"{text}; mifo.watchdog.stopped_seconds={limit:g} is over, and it is killed", now, stacks=True)
            on_node(ping.place.node_id, end, ping.place)

    def _seen(self, ping: _Ping) -> Look | None:
        """An actor's process, None where its node says nothing."""
        try:
            if not isinstance(ping.place, Place):
                ping.place = ray.get(ping.place, timeout=0)
            seen: Look = on_node(ping.place.node_id, look, ping.place)
        except (RayError, GetTimeoutError):
            return None
        return seen

    def _judge(self, stage: str, began: float, at_least: float, now: float) -> None:
        waited = now - began
        history = self._history[stage]
        usual = statistics.median(history) if history else None
        late = max(self._settings.floor_seconds, at_least, self._settings.factor * (usual or 0.0))
        if waited > self._settings.limit_seconds:
            text = f"{self._late(stage, waited, usual, now)}; mifo.watchdog.limit_seconds is over"
            self._fail(text, now, stacks=True)
        elif waited > max(late, 2 * self._told):
            self._told = waited
            self._say("late", self._late(stage, waited, usual, now))

    def _late(self, stage: str, waited: float, usual: float | None, now: float) -> str:
        silent = [
            f"{name} ({now - ping.asked:.0f} s without an answer)"
            for name, ping in self._pings.items()
            if now - ping.asked > 2 * _PING_SECONDS and not ray.wait([ping.answer], timeout=0)[0]
        ]
        awaited = self._waiting_for(stage)
        return (
            f"LATE: {stage} has taken {waited:.0f} s"
            + (f", usually {usual:.0f} s" if usual is not None else ", its first time")
            + (f"; waiting for {awaited}" if awaited else "")
            + (f"; busy or stuck: {', '.join(silent)}" if silent else "; every actor answers" if self._pings else "")
        )

    def _fail(self, text: str, now: float, stacks: bool = False) -> None:
        """The run cannot go on, for this reason; ``stacks`` where they may say more."""
        if stacks:
            try:
                text += f"; the stacks of all processes: {self._stacks()}"
            except Exception as error:
                text += f"; no stacks ({error})"
        self._failed_at = now
        self._say("failed", f"FAILED: {text}")
        self.failure = text


def _where(ping: _Ping) -> str:
    return f" (pid {ping.place.pid} on {ping.place.host})" if isinstance(ping.place, Place) else ""


def _has_died(name: str, error: Exception) -> str:
    return f"{name} has died ({' '.join(str(error).split())[:300]})"


def timed(stage: str, at_least: float = 0.0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of an object with a ``watchdog``, timed as a stage."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watchdog.stage(stage, at_least):
                return method(self, *args, **kwargs)

        return inside

    return decorate
