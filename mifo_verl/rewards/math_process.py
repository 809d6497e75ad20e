"""math-verify in a child process, so that an answer like ``9^{9^{9^9}}`` costs a few seconds and not the run.

math-verify's own limits are signals: they fail in the threads from which verl calls a reward, and never interrupt one
long big-number operation. A child that does not answer in time is killed, and the next call starts a new one (about
2 s). One child a process, one question at a time: a question takes a few milliseconds.
"""

import importlib.util
import json
import logging
import os
import resource
import select
import subprocess
import sys
import threading

_START_SECONDS = 120.0
"""The child imports sympy first, which is slow on a busy machine; that is not the answer's fault."""
_MEMORY_BYTES = 2 << 30
"""The child's address space: ``10^{10^{10}}`` would take 4 GB before its time is up."""


class MathProcess:
    """Asks the child whether two answers are equivalent; safe to call from several threads."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def equivalent(self, gold: str, text: str, timeout_seconds: float) -> bool:
        """Whether math-verify finds ``gold`` in ``text``; False where it takes longer than ``timeout_seconds``.

        Raises RuntimeError where the child cannot start.
        """
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._child = self._start()
            if not self._ask({"gold": gold, "text": text}):
                return False  # the child died, of memory for instance: the next call starts another
            answer = self._read(timeout_seconds)
            if answer is None:
                self._stop()
            return answer == b"1\n"

    def _start(self) -> "subprocess.Popen[bytes]":
        if importlib.util.find_spec("math_verify") is None:
            raise RuntimeError("mifo_verl.rewards.math needs math-verify; run pip install math-verify")
        command = [sys.executable, "-m", "mifo_verl.rewards.math_process"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if self._read(_START_SECONDS) != b"ready\n":
            self._stop()
            raise RuntimeError(f"math-verify did not start in {_START_SECONDS:.0f} s; try {' '.join(command)}")
        return self._child

    def _ask(self, question: dict[str, str]) -> bool:
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def _read(self, timeout_seconds: float) -> bytes | None:
        """The child's next line, empty where the child has died, None where it takes too long."""
        assert self._child is not None and self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], timeout_seconds)
        return self._child.stdout.readline() if ready else None

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


equivalent = MathProcess().equivalent


def _verify(gold: str, text: str) -> bool:
    """math-verify itself. A plain gold is boxed first: math-verify reads LaTeX only inside a box or dollars."""
    from math_verify import parse, verify

    parsed_gold = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    return bool(verify(parsed_gold, parse(text, parsing_timeout=None), timeout_seconds=None))


def _serve() -> None:
    """Answer one JSON line with ``1`` or ``0`` until the input ends, which is when the parent does."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints goes to stderr and not between the answers
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    _verify("1", "1")
    answers.write(b"ready\n")
    for line in sys.stdin:
        question = json.loads(line)
        try:
            correct = _verify(question["gold"], question["text"])
        except Exception:  # whatever sympy raises on a model's LaTeX: what cannot be read is wrong
            correct = False
        answers.write(b"1\n" if correct else b"0\n")


if __name__ == "__main__":
    _serve()
