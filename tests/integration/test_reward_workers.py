"""Rewards inside Ray actors, called as verl's reward managers call them: from an event loop, through threads."""

import asyncio
from collections.abc import Iterator

import pytest
import ray

HOSTILE = r"\boxed{9^{9^{9^{9}}}}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Worker:
    """A reward worker reduced to what it does with a reward function."""

    def __init__(self) -> None:
        from mifo_verl.rewards.math import compute_score

        self._score = compute_score

    async def score(self, text: str, answer: str) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            None, lambda: self._score(data_source="s", solution_str=text, ground_truth=answer, extra_info={})
        )


def test_every_call_gets_its_own_verdict_beside_hostile_ones(cluster: None) -> None:
    workers = [ray.remote(num_cpus=0)(Worker).remote() for _ in range(2)]
    calls, expected = [], []
    for number in range(200):
        right = number % 3 != 0
        text = HOSTILE if number % 50 == 25 else f"so $x={2 * number + 2}/2$"
        calls.append(workers[number % 2].score.remote(text, str(number + 1 if right else -1)))
        expected.append(int(right and text != HOSTILE))
    assert [result["acc"] for result in ray.get(calls, timeout=120)] == expected
