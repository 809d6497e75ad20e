"""Score hostile answers and report the time of each.

``python -m tests.benchmarks.check_hostile [count=10000] [seed=0] [threads=1] [out=<file>]``; ``threads`` answers are
checked at a time, as in a reward worker, and each one's time is its own, from question to verdict. The exit code is 1 where an answer took more than 1 s, where one was called correct, or where an ordinary answer that
followed was not.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mifo_verl.rewards import math
from mifo_verl.rewards.pool import Pool
from tests.benchmarks.hostile_answers import hostile_answers

GOLD = "17/23"


def ask(pool: Pool, text: str) -> tuple[float, str, int]:
    """(seconds of a hostile answer, how it ended, wrong verdicts: its own and that of an ordinary answer after it)."""
    start = time.monotonic()
    verdict = math.verdict(text, GOLD, pool=pool)
    seconds = time.monotonic() - start
    ordinary = math.verdict(r"so $\frac{34}{46}$", GOLD, pool=pool)
    return seconds, verdict.error or "read", verdict.correct + (not ordinary.correct)


def main(count: int, seed: int, threads: int, out: str | None) -> int:
    """Print the times of all answers by family."""
    pool = Pool(math.CHECKER)
    pool.start()
    seconds: dict[str, list[float]] = {}
    errors: Counter[str] = Counter()
    wrong = 0
    answers = list(hostile_answers(count, seed))
    with ThreadPoolExecutor(threads) as callers:
        asked = callers.map(lambda answer: ask(pool, answer[1]), answers)
        for (name, _), (taken, ended, mistakes) in zip(answers, tqdm(asked, total=count, unit="answer"), strict=True):
            seconds.setdefault(name, []).append(taken)
            errors[ended] += 1
            wrong += mistakes
    print(f"{'family':<16} {'answers':>8} {'median':>8} {'p99':>8} {'max':>8}  (s)")
    if out:
        Path(out).write_text(json.dumps({"seconds": seconds, "ended": errors, "wrong": wrong}))
    seconds["all"] = [one for times in seconds.values() for one in times]
    for name, unsorted in seconds.items():
        times = sorted(unsorted)
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(f"{name:<16} {len(times):>8} {times[len(times) // 2]:>8.3f} {p99:>8.3f} {times[-1]:>8.3f}")
    print(
        "ended by:",
        ", ".join(f"{name} {number}" for name, number in errors.most_common()),
        f"; wrong verdicts: {wrong}",
    )
    pool.close()
    return int(wrong > 0 or max(max(times) for times in seconds.values()) > 1.0)


if __name__ == "__main__":
    settings = dict(pair.split("=", 1) for pair in sys.argv[1:])
    count, seed, threads = (
        int(settings.get(name, least)) for name, least in (("count", 10000), ("seed", 0), ("threads", 1))
    )
    sys.exit(main(count, seed, threads, settings.get("out")))
