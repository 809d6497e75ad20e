"""Score lines: ``python -m mifo_verl.rewards kind=math < in.jsonl > out.jsonl``; without arguments, the usage."""

import os
import sys
from typing import Any

from mifo_verl.registry import nearest
from mifo_verl.rewards.kinds import Scorer, scorer
from mifo_verl.rewards.lines import write_scores
from mifo_verl.types import require

USAGE = """usage: python -m mifo_verl.rewards kind=<kind> [key=value ...] < in.jsonl > out.jsonl
  kind=math | boxed | exact | choice | reasoning_gym | auto | <file>.py:<function>   see docs/rewards.md
  require_think=false   true: a response without </think> is wrong
  workers=<cores>       lines checked at the same time
  cpu_seconds=0.5       CPU time of one check (math, reasoning_gym)
in:  {"response": text, "answer": text} a line, for reasoning_gym, auto and a function also "extra_info", "data_source"
out: {"score", "correct", "extracted", "seconds", "error"} a line, in the order of the input"""

_KEYS = ("kind", "require_think", "workers", "cpu_seconds")


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the arguments."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    try:
        score, workers = _read(arguments)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        write_scores(sys.stdin.buffer, sys.stdout.buffer, score, workers)
    except BrokenPipeError:  # the reader has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _read(arguments: list[str]) -> tuple[Scorer, int]:
    settings: dict[str, Any] = {}
    for pair in arguments:
        key, equals, value = pair.partition("=")
        if not equals or not value or key not in _KEYS:
            raise ValueError(f"{pair} must be key=value, key one of {', '.join(_KEYS)}{nearest(key, list(_KEYS))}")
        settings[key] = value
    require("kind" in settings, "kind", "", "set", "write kind=math")
    workers = settings.get("workers", str(os.cpu_count() or 1))
    require(workers.isdecimal() and 1 <= int(workers) <= 256, "workers", workers, "from 1 to 256", "leave it out")
    think = settings.get("require_think", "false")
    require(think in ("true", "false"), "require_think", think, "true or false", "leave it out")
    settings |= {"workers": int(workers), "require_think": think == "true"}
    if "cpu_seconds" in settings:
        settings["cpu_seconds"] = _positive(settings["cpu_seconds"])
    return scorer(**settings, start=True), int(workers)


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    require(0 < number < 3600, "cpu_seconds", value, "a number of seconds above 0", "leave it out for 0.5")
    return number


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code)
