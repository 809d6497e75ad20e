"""``python -m tests.benchmarks.check_growth [steps=6600]``: what a long run's tools and its display take.

Ends with 1 if the ledger takes 5 s of CPU or more, the report 10 s, or a poll of the display 5 ms.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mifo_verl.run.journal import METRICS, Follower
from mifo_verl.tools.ledger.__main__ import main as ledger
from mifo_verl.tools.report.__main__ import write
from tests.unit.example_run import ExampleRun, make_data


def seconds(action: Callable[[], object]) -> float:
    """Seconds of CPU that it takes this process."""
    started = time.process_time()
    action()
    return time.process_time() - started


def main(steps: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        run = ExampleRun(Path(name) / "run", make_data(Path(name), rows=6000)).run(steps)
        found = {"ledger": seconds(lambda: ledger([str(run)])), "report": seconds(lambda: write([run], run / "r.html"))}
        follow, polls = Follower(run / METRICS), 1000
        found["poll"] = seconds(lambda: [follow() for _ in range(polls)]) / polls
    limits = {"ledger": 5.0, "report": 10.0, "poll": 0.005}
    for what, taken in found.items():
        print(f"{what}: {taken:.6f} s of CPU, less than {limits[what]} s: {taken < limits[what]}")
    return int(any(taken >= limits[what] for what, taken in found.items()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1].removeprefix("steps=")) if len(sys.argv) > 1 else 6600))
