"""Checkers: each caller gets its own verdict, and a checker that dies, hangs or starves costs nobody another verdict."""

import json
import multiprocessing
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.rewards import math
from mifo_verl.rewards.pool import Pool
from tests.benchmarks.hostile_answers import FAMILIES, hostile_answers

pytestmark = pytest.mark.alone

HALF = {"gold": "1/2", "text": "$2/4$"}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(math.CHECKER)
    pool.start()
    yield pool
    pool.close()


def pid_of_checker(pool: Pool) -> int:
    """The checker that is asked next: free ones are taken from the top."""
    pool.check(HALF)
    checker = pool._slots.queue[-1]
    assert checker is not None
    return checker._pid


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_concurrent_calls_each_get_their_own_verdict(pool: Pool) -> None:
    numbers = [random.Random(0).randint(1, 400) for _ in range(400)]

    def check(index: int) -> bool:
        return math.verdict(
            f"so $x={2 * numbers[index]}/2$", str(numbers[index] if index % 3 else -1), pool=pool
        ).correct

    with ThreadPoolExecutor(16) as executor:
        assert list(executor.map(check, range(400))) == [index % 3 != 0 for index in range(400)]


def test_a_hostile_answer_costs_one_checker_and_not_the_calls_beside_it(pool: Pool) -> None:
    slow = threading.Thread(target=math.verdict, args=(r"\boxed{9^{9^{9^{9}}}}", "5", False, 0.5, pool))
    slow.start()
    time.sleep(0.05)
    assert math.verdict("$10/2$", "5", pool=pool).correct
    assert slow.is_alive()
    slow.join()


def test_a_checker_that_was_killed_is_replaced_and_the_question_asked_again(pool: Pool) -> None:
    os.kill(pid_of_checker(pool), signal.SIGKILL)
    assert pool.check(HALF)[0]["correct"] is True


def test_a_checker_killed_at_its_work_loses_no_verdict(pool: Pool) -> None:
    pid = pid_of_checker(pool)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert pool.check(HALF)[0]["correct"] is True


def test_a_starved_checker_is_waited_for_however_long_its_turn_takes(pool: Pool) -> None:
    pid = pid_of_checker(pool)
    os.kill(pid, signal.SIGSTOP)  # a checker that gets no processor at all
    threading.Timer(1.2, os.kill, (pid, signal.SIGCONT)).start()
    reply, seconds = pool.check(HALF)
    assert reply["correct"] is True and 1.0 < seconds < 5.0


def test_the_limit_of_cpu_time_ends_what_never_ends() -> None:
    patient = Pool(math.CHECKER, size=1)
    reply, seconds = patient.check({"gold": "1", "text": r"\boxed{9^{9^{9^{9}}}}"}, cpu_seconds=0.2)
    assert reply == {"error": "cpu limit"} and seconds > 0.15
    patient.close()


def test_the_wall_clock_ends_a_check_that_gets_nowhere() -> None:
    impatient = Pool(math.CHECKER, size=1, wall_seconds=0.3)
    os.kill(pid_of_checker(impatient), signal.SIGSTOP)
    reply, seconds = impatient.check(HALF)
    assert reply == {"error": "wall clock"} and seconds > 0.25
    impatient.wall_seconds = 15.0
    assert impatient.check(HALF)[0]["correct"] is True
    impatient.close()


SLOW = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
def warm_up(): burn(0.5)
def prepare(request): burn(request["gold"])
def check(request):
    burn(request["answer"])
    return {"done": True}
"""


def test_only_the_answer_is_limited_and_by_work_not_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    slow = Pool("slow_module", size=1, wall_seconds=0.4)
    for gold, answer, reply in [
        (1.0, 0.0, {"done": True}),  # neither the first check nor the gold answer is the answer's time, nor the clock
        (0.0, 0.1, {"done": True}),
        (0.0, 1.0, {"error": "cpu limit"}),
        (0.3, 0.1, {"done": True}),
    ]:
        assert slow.check({"gold": gold, "answer": answer}, cpu_seconds=0.3)[0] == reply, (gold, answer)
    slow.close()


def test_a_template_that_died_is_started_again() -> None:
    pool = Pool(math.CHECKER, size=1)
    pid_of_checker(pool)
    assert pool._template is not None
    pool._template._process.kill()
    pool._template._process.wait()
    checker = pool._slots.get()
    assert checker is not None
    checker.end()
    pool._slots.put(None)
    assert pool.check(HALF)[0]["correct"] is True
    pool.close()


def test_closing_leaves_no_process_behind() -> None:
    pool = Pool(math.CHECKER, size=1)
    child = pid_of_checker(pool)
    assert pool._template is not None
    template = pool._template._process.pid
    assert is_alive(child) and is_alive(template)
    pool.close()
    deadline = time.monotonic() + 10
    while (is_alive(child) or is_alive(template)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child) and not is_alive(template)


def test_a_caller_that_is_killed_leaves_no_process_behind_even_one_that_does_not_listen() -> None:
    code = (
        "import time; from mifo_verl.rewards.pool import Pool; from mifo_verl.rewards import math\n"
        "pool = Pool(math.CHECKER, size=1); pool.check({'gold': '1', 'text': '1'})\n"
        "print(pool._slots.queue[-1]._pid, pool._template._process.pid, flush=True); time.sleep(60)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    pids = [int(pid) for pid in caller.stdout.readline().split()]
    assert len(pids) == 2 and all(is_alive(pid) for pid in pids)
    os.kill(pids[0], signal.SIGSTOP)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in pids)


def check_in_fork(pool: Pool, numbers: range, results: Any) -> None:
    results.put([math.verdict(f"$x={2 * n}/2$", str(n if n % 3 else -1), pool=pool).correct for n in numbers])


def test_a_forked_process_has_checkers_of_its_own(pool: Pool) -> None:
    pool.check(HALF)  # so that there is a checker that a fork could take for its own
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=check_in_fork, args=(pool, range(3, 303), results)) for _ in range(2)]
    for process in processes:
        process.start()
    check_in_fork(pool, range(300), own := queue.SimpleQueue())
    assert own.get() == [n % 3 != 0 for n in range(300)]
    assert [results.get(timeout=60) for _ in processes] == [[n % 3 != 0 for n in range(3, 303)]] * 2
    for process in processes:
        process.join(timeout=10)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"no_such_module did not start"):
        Pool("mifo_verl.rewards.no_such_module", size=1).check({})


def test_hostile_answers_of_every_family_are_wrong_in_time_and_the_next_ordinary_one_is_right(pool: Pool) -> None:
    assert len(FAMILIES) >= 15
    for name, text in hostile_answers(3 * len(FAMILIES), seed=1):
        start = time.monotonic()
        verdict = math.verdict(text, "17/23", cpu_seconds=0.1, pool=pool)
        assert time.monotonic() - start < 5.0, name  # 0.1 s where nothing else runs
        assert not verdict.correct, name
        json.dumps(verdict.extracted)
        assert math.verdict(r"$\frac{34}{46}$", "17/23", pool=pool).correct, name
