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
    """The run cannot go on without this actor; the message says why. ``stopped`` is its place if it is not dead."""

    def __init__(self, text: str, stopped: Place | None = None) -> None:
        super().__init__(text)
        self.stopped = stopped


@dataclass
class _Ping:
    """The last question to one actor, and what was seen of its process since. Times are the monotonic clock's."""

    name: str
    handle: Any
    asked: float
    answer: Any
    place: Any
    """The Place of its process, or the reference to one that is still to come."""
    next_look: float = 0.0
    reported: float = 0.0
    """Seconds of silence that were reported, 0 if none were."""
    stopped_since: float | None = None

    def has_answered(self) -> bool:
        """Whether the answer is there. Raises Lost if the actor has died; one that is out of reach is asked again."""
        if not ray.wait([self.answer], timeout=0)[0]:
            return False
        try:
            ray.get(self.answer)
        except ActorDiedError as error:
            raise Lost(_has_died(self.name, error)) from error
        except RayError:
            self.answer = self.handle.__ray_ready__.remote()
            return False
        return True

    def known_place(self) -> Place | None:
        """Where its process is, None if that has not come yet."""
        if not isinstance(self.place, Place):
            with suppress(RayError):
                self.place = ray.get(self.place, timeout=0)
        return self.place if isinstance(self.place, Place) else None

    def where(self) -> str:
        """Its process in words."""
        found = self.known_place()
        return f" (pid {found.pid} on {found.host})" if found else ""


class Liveness:
    """The actors of one run. ``emit`` takes (kind, text) of an event."""

    def __init__(self, stopped_seconds: float, emit: Callable[[str, str], None]) -> None:
        self._stopped_seconds = stopped_seconds
        self._emit = emit
        self._pings: list[_Ping] = []

    def watch(self, actors: dict[str, Any], now: float) -> None:
        """Watch these actors, by the name that a person knows them by."""
        self._pings = [
            _Ping(name, handle, now, handle.__ray_ready__.remote(), handle.__ray_call__.remote(place))
            for name, handle in actors.items()
        ]

    def check(self, now: float, usual_step: float, patience: float) -> None:
        """Take answers and ask again; look at those that owe one for half a step, and report those that have been
        silent for longer than ``patience`` seconds. Raises Lost.
        """
        silent = [ping for ping in self._pings if not self._has_answered(ping, now, usual_step)]
        due = [ping for ping in silent if now - ping.asked > usual_step / 2 and now >= ping.next_look]
        places = [place for ping in due if (place := ping.known_place())]
        seen = look_at_all(places) if places else {}
        for ping in due:
            found = ping.known_place()
            self._judge(ping, seen.get(found) if found else None, now, patience)

    def require_alive(self) -> None:
        """Ask every actor now. Raises Lost if one has died; one that is slow to answer lives."""
        asked = {ping.handle.__ray_ready__.remote(): ping.name for ping in self._pings}
        for answer in ray.wait(list(asked), num_returns=len(asked), timeout=_PING_SECONDS)[0] if asked else []:
            try:
                ray.get(answer)
            except ActorDiedError as error:
                raise Lost(_has_died(asked[answer], error)) from error
            except RayError:
                pass

    def summary(self, now: float) -> str:
        """The actors that have not answered for long, in words; empty if none is watched."""
        silent = [
            f"{ping.name} ({now - ping.asked:.0f} s without an answer)"
            for ping in self._pings
            if now - ping.asked > 2 * _PING_SECONDS and not ray.wait([ping.answer], timeout=0)[0]
        ]
        return f"busy or stuck: {', '.join(silent)}" if silent else "every actor answers" if self._pings else ""

    def _has_answered(self, ping: _Ping, now: float, usual_step: float) -> bool:
        """Whether an actor has answered; it is asked again in time. Raises Lost."""
        if not ping.has_answered():
            return False
        if ping.reported:
            self._emit("answers", f"{ping.name} answers again")
            ping.reported, ping.stopped_since, ping.next_look = 0.0, None, 0.0
        if now - ping.asked > min(_PING_SECONDS, usual_step / 4):
            ping.asked, ping.answer = now, ping.handle.__ray_ready__.remote()
        return True

    def _judge(self, ping: _Ping, seen: Look | None, now: float, patience: float) -> None:
        """Report an actor that is stopped, or silent for too long. Raises Lost if it stays stopped."""
        silence, limit = now - ping.asked, self._stopped_seconds
        text = f"{ping.name} has not answered for {silence:.0f} s"
        if seen is None or not seen.is_stopped:
            ping.stopped_since, ping.next_look = None, now + max(_PING_SECONDS, silence / 2)
            if silence > max(patience, 2 * ping.reported):
                ping.reported = silence
                facts = f"{seen.state}, {seen.cpu_seconds:.0f} s of CPU" if seen else "its node says nothing of it"
                self._emit("silent", f"SILENT: {text}{ping.where()} ({facts})")
            return
        ping.next_look = now + _PING_SECONDS
        text += f": its process is stopped, as by SIGSTOP{ping.where()}"
        if ping.stopped_since is None:
            ping.stopped_since, ping.reported = now, silence
            self._emit("stopped", f"STOPPED: {text}; continue it, or in {limit:g} s the run ends")
        elif now - ping.stopped_since > limit:
            over = f"mifo.watchdog.stopped_seconds={limit:g} is over, and it is killed"
            raise Lost(f"{text}; {over}", stopped=ping.known_place())


def _has_died(name: str, error: Exception) -> str:
    return f"{name} has died ({' '.join(str(error).split())[:300]})"
