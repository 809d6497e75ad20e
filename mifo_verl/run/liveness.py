"""Whether the actors of a run still answer, and what their nodes say of those that do not.

An actor that is silent may be busy, and is looked at on its node: only one that has died, or whose process stays
stopped, is lost.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from mifo_verl.run.processes import Look, Place, look_at_all, place

_PING_SECONDS = 5.0


class Lost(Exception):
    """The run cannot go on without this actor; the message says why."""

    def __init__(self, text: str, stopped: Place | None = None) -> None:
        super().__init__(text)
        self.stopped = stopped
        """Its process, where that is stopped and not dead."""


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


class SignsOfLife:
    """The actors of one run. ``say`` takes (kind, text)."""

    def __init__(self, factor: float, stopped_seconds: float, say: Callable[[str, str], None]) -> None:
        self._factor = factor
        self._stopped_seconds = stopped_seconds
        self._say = say
        self._pings: dict[str, _Ping] = {}

    def watch(self, actors: dict[str, Any], now: float) -> None:
        """Watch these actors, by the name that a person knows them by."""
        self._pings = {
            name: _Ping(handle, now, handle.__ray_ready__.remote(), handle.__ray_call__.remote(place))
            for name, handle in actors.items()
        }

    def check(self, now: float, usual_step: float) -> None:
        """Take answers and ask again; look at those that owe one for half a step. Raises Lost."""
        owing = {name: ping for name, ping in self._pings.items() if self._owes(name, ping, now, usual_step)}
        due = {name: ping for name, ping in owing.items() if now - ping.asked > usual_step / 2 and now >= ping.look_at}
        places = {name: ping.place for name, ping in due.items() if _has_place(ping)}
        seen = look_at_all(places.values()) if places else {}
        for name, ping in due.items():
            self._judge(name, ping, seen.get(places[name]) if name in places else None, now, usual_step)

    def require_alive(self) -> None:
        """Ask every actor now. Raises Lost where one has died; one that is slow to answer lives."""
        asked = {ping.handle.__ray_ready__.remote(): name for name, ping in self._pings.items()}
        answers = ray.wait(list(asked), num_returns=len(asked), timeout=_PING_SECONDS)[0] if asked else []
        for answer in answers:
            try:
                ray.get(answer)
            except ActorDiedError as error:
                raise Lost(_has_died(asked[answer], error)) from error
            except RayError:
                pass

    def summary(self, now: float) -> str:
        """The actors that have not answered for long, in words; empty where none is watched."""
        silent = [
            f"{name} ({now - ping.asked:.0f} s without an answer)"
            for name, ping in self._pings.items()
            if now - ping.asked > 2 * _PING_SECONDS and not _is_there(ping.answer)
        ]
        return f"busy or stuck: {', '.join(silent)}" if silent else "every actor answers" if self._pings else ""

    def _owes(self, name: str, ping: _Ping, now: float, usual_step: float) -> bool:
        """Whether an actor owes an answer; where it has given one it is asked again in time. Raises Lost."""
        if not _is_there(ping.answer):
            return True
        try:
            ray.get(ping.answer)
        except ActorDiedError as error:
            raise Lost(_has_died(name, error)) from error
        except RayError:  # it cannot be reached for the moment, which is no sign of life and none of death
            ping.answer = ping.handle.__ray_ready__.remote()
            return True
        if ping.told:
            self._say("answers", f"{name} answers again")
            ping.told, ping.stopped_at, ping.look_at = 0.0, None, 0.0
        if now - ping.asked > min(_PING_SECONDS, usual_step / 4):
            ping.asked, ping.answer = now, ping.handle.__ray_ready__.remote()
        return False

    def _judge(self, name: str, ping: _Ping, seen: Look | None, now: float, usual_step: float) -> None:
        """Tell of an actor that is stopped, or silent for longer than two steps. Raises Lost where it stays stopped."""
        silence = now - ping.asked
        ping.look_at = now + _PING_SECONDS
        if seen is None or not seen.is_stopped:
            ping.stopped_at = None
            ping.look_at = now + max(_PING_SECONDS, silence / 2)
            if silence > max(self._factor * usual_step, 2 * ping.told):
                ping.told = silence
                facts = (
                    "its node says nothing of it" if seen is None else f"{seen.state}, {seen.cpu_seconds:.0f} s of CPU"
                )
                self._say("silent", f"SILENT: {name} has not answered for {silence:.0f} s{_where(ping)} ({facts})")
            return
        text = f"{name} has not answered for {silence:.0f} s: its process is stopped, as by SIGSTOP{_where(ping)}"
        limit = self._stopped_seconds
        if ping.stopped_at is None:
            ping.stopped_at, ping.told = now, silence
            self._say("stopped", f"STOPPED: {text}; continue it, or in {limit:g} s the run ends")
        elif now - ping.stopped_at > limit:
            over = f"mifo.watchdog.stopped_seconds={limit:g} is over, and it is killed"
            raise Lost(f"{text}; {over}", stopped=ping.place)


def _is_there(answer: Any) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])


def _has_place(ping: _Ping) -> bool:
    if not isinstance(ping.place, Place):
        with suppress(RayError):
            ping.place = ray.get(ping.place, timeout=0)
    return isinstance(ping.place, Place)


def _where(ping: _Ping) -> str:
    return f" (pid {ping.place.pid} on {ping.place.host})" if isinstance(ping.place, Place) else ""


def _has_died(name: str, error: Exception) -> str:
    return f"{name} has died ({' '.join(str(error).split())[:300]})"
