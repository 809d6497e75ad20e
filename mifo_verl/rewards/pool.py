"""A pool of checkers: every caller gets its own verdict, a checker that dies is replaced, no answer stops the run."""

import atexit
import os
import queue
import threading
import time
import weakref
from typing import Any

from mifo_verl.rewards.template import WALL_SECONDS, Checker, Template, TemplateGone

CPU_SECONDS = 0.7
"""The CPU time of one check, hundreds of times what an ordinary answer takes; waiting for a processor costs nothing."""
OVER_LIMIT = ("cpu limit", "wall clock")
"""The errors of a check that a limit has ended."""
SIZE = 2
"""Checkers of one calling process; verl runs several reward workers, each with its own."""
_CHECKS_OF_ONE = 2000
"""A checker is replaced after as many, so that caches do not grow into its memory limit."""
_TRIES = 2


class Pool:
    """Checks requests in up to ``size`` processes, started when they are needed; for threads, and after a fork too.

    ``module`` is one with ``check`` and ``warm_up`` (``mifo_verl.rewards.checker``).
    """

    def __init__(self, module: str, size: int = SIZE, wall_seconds: float = WALL_SECONDS) -> None:
        self.module = module
        self.size = size
        self.wall_seconds = wall_seconds
        self._forget()
        _POOLS.add(self)

    def check(self, request: dict[str, Any], cpu_seconds: float = CPU_SECONDS) -> tuple[dict[str, Any], float]:
        """The module's reply, or ``{"error": reason}``, and the wall seconds from the question to it.

        A checker that crashed is asked no more: another one gets the request once more, in case the fault was the
        system's. Raises RuntimeError where no checker can be started.
        """
        request = {**request, "cpu_seconds": cpu_seconds}
        slots = self._slots
        checker, kept, seconds = slots.get(), None, 0.0
        try:
            for _ in range(_TRIES):
                checker = checker or self._fork()
                start = time.monotonic()
                reply = checker.ask(request, self.wall_seconds)
                seconds += time.monotonic() - start
                if isinstance(reply, dict):
                    kept = checker
                    break
                checker = None
                if reply != "crashed":
                    break
        except BaseException:  # interrupted between question and answer: the next caller must not get this answer
            if checker is not None:
                checker.end()
            raise
        finally:
            slots.put(self._fresh(kept))
        return (reply if isinstance(reply, dict) else {"error": reply}), seconds

    def start(self) -> None:
        """Start the template now rather than at the first check: 1 to 2 s of CPU."""
        self._fork().end()

    def close(self) -> None:
        """End all processes; the next check starts them again."""
        template = self._template
        self._forget()
        if template is not None:
            template.close()

    def _forget(self) -> None:
        """Start anew without touching the processes: in a forked child they are the parent's."""
        self._template: Template | None = None
        self._lock = threading.Lock()
        self._slots: queue.LifoQueue[Checker | None] = queue.LifoQueue()
        for _ in range(self.size):
            self._slots.put(None)

    def _fresh(self, checker: Checker | None) -> Checker | None:
        if checker is not None and checker.num_checks >= _CHECKS_OF_ONE:
            checker.end()
            return None
        return checker

    def _fork(self) -> Checker:
        """A fresh checker, from a fresh template where the one before has died."""
        for _ in range(_TRIES):
            with self._lock:
                if self._template is None:
                    self._template = Template(self.module)
                template = self._template
            try:
                return template.fork()
            except TemplateGone:
                with self._lock:
                    if self._template is template:
                        self._template = None
                template.close()
        raise RuntimeError(f"{self.module}: the process that forks checkers dies; see the error above")


_POOLS: "weakref.WeakSet[Pool]" = weakref.WeakSet()
_NAMED: dict[str, Pool] = {}
_NAMED_LOCK = threading.Lock()


def pool_of(module: str) -> Pool:
    """This process's pool for a module: one for all calls that name no other."""
    with _NAMED_LOCK:
        return _NAMED.setdefault(module, _NAMED.get(module) or Pool(module))


def _after_fork() -> None:
    global _NAMED_LOCK
    _NAMED_LOCK = threading.Lock()
    for pool in list(_POOLS):
        pool._forget()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()
