"""Batches of requests that come one by one."""

import asyncio
from collections.abc import Callable

import pytest

from mifo_verl.cpu.batcher import Arrivals


class Recorder:
    """Answers each request with its double, and keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, asked: list[int], answer: Callable[[int, int], None]) -> None:
        self.batches.append(sorted(asked))
        for place, number in enumerate(asked):
            if number < 0:
                raise ValueError(f"{number} is negative")
            answer(place, 2 * number)


async def served(
    arrivals: Arrivals[int, int], requests: list[int], pause: float = 0.0
) -> tuple[list[object], Recorder]:
    """What each request gets, ``pause`` seconds between them."""
    recorder = Recorder()
    serving = asyncio.create_task(arrivals.serve(recorder))
    tasks = []
    for number in requests:
        tasks.append(asyncio.create_task(arrivals.put(number)))
        await asyncio.sleep(pause)
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=5)
    serving.cancel()
    return answers, recorder


def test_announced_requests_run_together_however_slowly_they_come() -> None:
    arrivals: Arrivals[int, int] = Arrivals(timeout_seconds=5)
    arrivals.expect(2)
    arrivals.expect(1)
    answers, recorder = asyncio.run(served(arrivals, [3, 1, 2], pause=0.05))
    assert answers == [6, 2, 4]
    assert recorder.batches == [[1, 2, 3]]


def test_requests_that_nobody_announced_run_after_a_moment() -> None:
    answers, recorder = asyncio.run(served(Arrivals(timeout_seconds=5), [3, 1]))
    assert answers == [6, 2]
    assert recorder.batches == [[1, 3]]


def test_a_request_that_never_comes_delays_the_others_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    arrivals: Arrivals[int, int] = Arrivals(timeout_seconds=0.05)
    arrivals.expect(3)
    answers, _ = asyncio.run(served(arrivals, [3, 1]))
    assert answers == [6, 2]
    assert "only 2 of 3" in caplog.text


def test_a_refused_request_counts_as_come() -> None:
    arrivals: Arrivals[int, int] = Arrivals(timeout_seconds=60)
    arrivals.expect(2)
    arrivals.expect_one_less()
    assert asyncio.run(served(arrivals, [3]))[0] == [6]


def test_an_error_reaches_all_who_wait_and_the_next_batch_runs() -> None:
    async def run() -> tuple[list[object], list[object]]:
        arrivals: Arrivals[int, int] = Arrivals(timeout_seconds=5)
        arrivals.expect(3)
        failed, _ = await served(arrivals, [1, -1, 2])
        return failed, (await served(arrivals, [4]))[0]

    failed, after = asyncio.run(run())
    assert failed[0] == 2
    assert all(isinstance(answer, ValueError) for answer in failed[1:])
    assert after == [8]


def test_what_waits_can_be_given_back() -> None:
    async def run() -> tuple[int, int]:
        arrivals: Arrivals[int, int] = Arrivals(timeout_seconds=5)
        arrivals.expect(2)
        waiting = asyncio.create_task(arrivals.put(1))
        await asyncio.sleep(0)
        return arrivals.give_back(-1), await waiting

    assert asyncio.run(run()) == (1, -1)
