"""The processes in which answers are checked: a template that never checks, and the checkers that it forks.

``python -m mifo_verl.rewards.checker <module>`` imports the module once, lets it ``warm_up()``, and then forks a
checker in milliseconds whenever one is asked for on its standard input, a socket. Each checker calls the module's
``check(request) -> reply`` under a limit of memory and one of CPU time, which the kernel enforces even inside one long
big-number operation. What a module does in ``prepare(request)``, such as reading the gold answer, has a limit of its
own, so that it takes nothing from the answer's. Without the process that asked, all of them end.
"""

import contextlib
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MEMORY_BYTES = 1 << 30
"""A checker's address space: ``10^{10^{10}}`` would take 4 GB before its time is up."""

PREPARE_CPU_SECONDS = 30.0
"""A user's own gold answer may take far longer than a model's answer: the first formula of its shape does."""

Check = Callable[[dict[str, Any]], dict[str, Any]]


def serve(connection: Connection, check: Check, prepare: Callable[[dict[str, Any]], object]) -> None:
    """Answer requests until the other side has gone. Over ``cpu_seconds`` of CPU time SIGPROF ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    while True:
        request = json.loads(connection.recv_bytes())
        try:
            signal.setitimer(signal.ITIMER_PROF, PREPARE_CPU_SECONDS)
            with contextlib.suppress(Exception):
                prepare(request)
            signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
            reply = check(request)
        except Exception as error:  # whatever a library raises on a model's text: what cannot be read is wrong
            reply = {"error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(json.dumps(reply).encode("ascii"))


def run_template(control: socket.socket, check: Check, prepare: Callable[[dict[str, Any]], object]) -> None:
    """Fork a checker for every socket that comes in, end one for every pid; what is sent back is a pid or a status."""
    children: set[int] = set()
    ended: set[int] = set()
    control.send(b"ready")
    while True:
        ended -= {pid for pid in ended if os.waitpid(pid, os.WNOHANG)[0]}
        message, files, _, _ = socket.recv_fds(control, 64, 1)
        if files:
            pid = os.fork()
            if pid == 0:
                control.close()
                with contextlib.suppress(EOFError, ConnectionError):
                    serve(Connection(files[0]), check, prepare)
                os._exit(0)
            os.close(files[0])
            children.add(pid)
            control.send(str(pid).encode())
        elif message:
            name, wait = message.split()
            control.send(str(_end(int(name), children, ended, wait == b"wait")).encode())
        else:
            break
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _end(pid: int, children: set[int], ended: set[int], wait: bool) -> int:
    """Kill the checker where it still runs; where asked to wait, its exit code, negative for the signal that ended it.

    Without waiting it is -9: a process takes a while to give back a lot of memory. It is collected at a later call.
    """
    os.kill(pid, signal.SIGKILL)  # not collected yet, so the number is still its own
    children.remove(pid)
    if wait:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ended.add(pid)
    return -signal.SIGKILL


def main(module_name: str) -> None:
    """Run the template of a module on the socket that is standard input."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a library prints goes to stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked decides when to end
    logging.disable(logging.CRITICAL)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        extra = "; pip install 'mifo_verl[gym]'" if error.name == "reasoning_gym" else ""
        sys.exit(f"{module_name} needs the package {error.name}{extra}")
    module.warm_up()
    gc.collect()
    gc.freeze()  # so that a checker's garbage collector does not copy the template's pages
    with contextlib.suppress(ConnectionError):
        run_template(control, module.check, getattr(module, "prepare", lambda _: None))


if __name__ == "__main__":
    main(sys.argv[1])
