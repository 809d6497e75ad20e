"""Score lines: ``mifo score kind=math < in.jsonl > out.jsonl``; without arguments, the usage."""

import os
import sys
from dataclasses import dataclass

from mifo_verl.errors import require
from mifo_verl.rewards.kinds import scorer
from mifo_verl.rewards.pool import CPU_SECONDS
from mifo_verl.tools.command_line import read
from mifo_verl.tools.score.lines import write_scores

USAGE = """usage: mifo score kind=<kind> [key=value ...] < in.jsonl > out.jsonl
  kind=math | boxed | exact | choice | reasoning_gym | auto | <file>.py:<function>   see docs/start.md
  require_think=false   true: a response without </think> is wrong
  workers=<cores>       lines checked at the same time
  cpu_seconds=0.7       CPU time of one check (math, reasoning_gym)
in:  {"response": text, "answer": text} a line, for reasoning_gym, auto and a function also "extra_info", "data_source"
out: {"score", "correct", "extracted", "seconds", "error", "method"} a line, in the order of the input"""


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
    code = main(sys.argv[1:])
    sys.exit(code)
