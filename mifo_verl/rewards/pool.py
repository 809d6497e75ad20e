"""A pool of checkers: every caller gets its own verdict, a checker that dies is replaced, no answer stops the run.

One template process, which has imported what checks need, forks the checkers; the caller has a handle for each.
"""

import atexit
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from multiprocessing.connection import Connection
from typing import Any

_START_SECONDS = 120.0
"""The template imports sympy first, which is slow on a busy machine."""
WALL_SECONDS = 15.0
"""A check that used no CPU time for so long was stopped, or waits for what never comes; a busy machine is neither."""
_END_SECONDS = 2.0
CPU_SECONDS = 0.7
"""The CPU time of one check, hundreds of times what an ordinary answer takes; waiting for a processor costs nothing."""
OVER_LIMIT = ("cpu limit", "wall clock")
"""The errors of a check that a limit has ended."""
SIZE = 2
"""Checkers of one calling process; verl runs several reward workers, each with its own."""
_CHECKS_OF_ONE = 2000
"""A checker is replaced after as many, so that caches do not grow into its memory limit."""
_TRIES = 2


class TemplateGone(Exception):
    """The template has died, by the system's hand for instance."""


class Template:
    """Forks checkers of one module; safe to call from several threads. Raises RuntimeError where it cannot start."""

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "mifo_verl.rewards.checker", module]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)
        self._control = ours
        self._lock = threading.Lock()
        ours.settimeout(_START_SECONDS)
        if self._reply() != b"ready":
            self.close()
            raise RuntimeError(f"{module} did not start; see the error above, and try {' '.join(command)} < /dev/null")

    def fork(self) -> "Checker":
        """A fresh checker, within milliseconds. Raises TemplateGone."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
            except OSError:
                raise TemplateGone from None
            pid = self._reply()
        if not pid:
            raise TemplateGone
        return Checker(self, Connection(ours.detach()), int(pid))

    def end(self, pid: int, wait: bool) -> int | None:
        """End a checker; its exit code, negative for the signal that ended it, None where the template has died too."""
        with self._lock:
            try:
                self._control.send(f"{pid} {'wait' if wait else 'leave'}".encode())
            except OSError:
                return None
            code = self._reply()
        return int(code) if code else None

    def close(self) -> None:
        """End the template, which ends its checkers."""
        self._control.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # still importing
            self._process.kill()
            self._process.wait()

    def _reply(self) -> bytes:
        """Empty where the template has died or does not answer."""
        try:
            return self._control.recv(64)
        except OSError:
            return b""


class Checker:
    """One process that checks one answer at a time."""

    def __init__(self, template: Template, connection: Connection, pid: int) -> None:
        self.num_checks = 0
        self._template = template
        self._connection = connection
        self._pid = pid

    def ask(self, request: dict[str, Any], wall_seconds: float = WALL_SECONDS) -> dict[str, Any] | str:
        """The reply, or why there is none; a checker that gave none has ended and is not to be asked again."""
        self.num_checks += 1
        try:
            self._connection.send_bytes(json.dumps(request).encode("ascii"))  # so lone surrogates pass
            used = -1
            while not self._connection.poll(wall_seconds):
                used, before = self._cpu_ticks(), used
                if used == before:
                    self.end()
                    return "wall clock"
            return dict(json.loads(self._connection.recv_bytes()))
        except (OSError, EOFError):
            pass
        return "cpu limit" if self.end(wait=True) == -signal.SIGPROF else "crashed"

    def _cpu_ticks(self) -> int:
        """The CPU time that the process has used, in the kernel's ticks of 10 ms."""
        with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as stat:
            return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))

    def end(self, wait: bool = False) -> int | None:
        """End the process, without waiting until it has gone, or with its exit code."""
        self._connection.close()
        return self._template.end(self._pid, wait)


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
