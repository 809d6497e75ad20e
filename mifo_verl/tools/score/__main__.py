"""Score lines: ``mifo score kind=math < in.jsonl > out.jsonl``: in order, each as soon as its turn is done, in bounded
memory; without arguments, the usage."""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from mifo_verl.errors import require
from mifo_verl.rewards.kinds import Scorer, scorer
from mifo_verl.rewards.pool import CPU_SECONDS
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.command_line import read

USAGE = """usage: mifo score kind=<kind> [key=value ...] < in.jsonl > out.jsonl
  kind=math | boxed | exact | choice | reasoning_gym | auto | <file>.py:<function>   see docs/start.md
  require_think=false   true: a response without </think> is wrong
  workers=<cores>       lines checked at the same time
  cpu_seconds=0.7       CPU time of one check (math, reasoning_gym)
in:  {"response": text, "answer": text} a line, for reasoning_gym, auto and a function also "extra_info", "data_source"
out: {"score", "correct", "extracted", "seconds", "error", "method"} a line, in the order of the input"""
MAX_LINE_BYTES = 16 << 20
"""A longer line is an error object, and is never held in memory."""
AHEAD = 8
"""Lines read ahead of the one that is written next, for each worker."""


@dataclass(frozen=True)
class Settings:
    """What is scored, and how; the kind is checked where its reward is made."""

    kind: str
    require_think: bool = False
    workers: int = os.cpu_count() or 1
    cpu_seconds: float = CPU_SECONDS

    def __post_init__(self) -> None:
        require(1 <= self.workers <= 256, "workers", self.workers, "from 1 to 256", "leave it out")
        good = 0 < self.cpu_seconds < 3600
        require(good, "cpu_seconds", self.cpu_seconds, "a number of seconds above 0", "leave it out for 0.7")


def write_scores(source: BinaryIO, out: BinaryIO, score: Scorer, workers: int) -> None:
    """Write one object a line of ``source``, a blank one too: score, correct, extracted, seconds, error.

    Raises BrokenPipeError where ``out`` is closed.
    """
    turns: queue.Queue[Future[bytes] | None] = queue.Queue(AHEAD * workers)
    failed: list[OSError] = []
    writer = threading.Thread(target=_write, args=(turns, out, failed), daemon=True)
    writer.start()
    with ThreadPoolExecutor(workers) as executor:
        for line in _lines(source):
            if failed:
                break
            turns.put(executor.submit(_scored, line, score))
        turns.put(None)
        writer.join()
    if failed:
        raise failed[0]


def _write(turns: "queue.Queue[Future[bytes] | None]", out: BinaryIO, failed: list[OSError]) -> None:
    """Write results in turn until None; after a failed write take the rest without writing."""
    while (turn := turns.get()) is not None:
        result = turn.result()
        if failed:
            continue
        try:
            out.write(result)
            out.flush()
        except OSError as error:
            failed.append(error)


def _lines(source: BinaryIO) -> Iterator[bytes | None]:
    """The lines; None for one that is too long."""
    while line := source.readline(MAX_LINE_BYTES):
        if line.endswith(b"\n") or len(line) < MAX_LINE_BYTES:
            yield line
            continue
        while (rest := source.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _scored(line: bytes | None, score: Scorer) -> bytes:
    start = time.monotonic()
    try:
        response, answer, row = _record(line)
        verdict = score(response, answer, row)
    except Exception as error:  # a user's own function may raise anything; a line never stops the rest
        message = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        verdict = Verdict(0.0, False, None, time.monotonic() - start, " ".join(message.split())[:500])
    fields = {
        "score": verdict.score,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "seconds": round(verdict.seconds, 4),
        "error": verdict.error,
        "method": verdict.method,
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def _record(line: bytes | None) -> tuple[str, str, Mapping[str, Any]]:
    """Response, answer and the whole record. Raises ValueError that says what is wrong with the line."""
    if line is None:
        raise ValueError(f"line must be at most {MAX_LINE_BYTES >> 20} MiB")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("line must be a JSON object") from None
    if not isinstance(record, dict):
        raise ValueError("line must be a JSON object")
    response, answer = record.get("response"), record.get("answer")
    if not isinstance(response, str):
        raise ValueError("response must be a string")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError("answer must be a string or a number")
    if not isinstance(record.get("extra_info") or {}, dict):
        raise ValueError("extra_info must be an object")
    return response, str(answer), record


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the arguments."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    try:
        settings = read(Settings, arguments)
        score = scorer(**vars(settings), start=True)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        write_scores(sys.stdin.buffer, sys.stdout.buffer, score, settings.workers)
    except BrokenPipeError:  # the reader has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
