"""The caller's end of checkers: one template process that forks them, and a handle for each."""

import json
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

_START_SECONDS = 120.0
"""The template imports sympy first, which is slow on a busy machine."""
WALL_SECONDS = 15.0
"""A check that used no CPU time for so long was stopped, or waits for what never comes; a busy machine is neither."""
_END_SECONDS = 2.0


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
