"""Requests that come one by one, collected into batches that do not depend on when each of them came."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

GATHER_SECONDS = 0.02
"""Requests that nobody announced run as soon as none has come for so long."""

logger = logging.getLogger(__name__)


class Arrivals(Generic[Asked, Answer]):
    """Announced requests run together, once all of them have come. Whoever waits gets an answer or an error."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._expected = 0
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._news = asyncio.Event()

    def expect(self, num_requests: int) -> None:
        """Announce requests; announcements add up."""
        self._expected += num_requests
        self._news.set()

    def expect_one_less(self) -> None:
        """A request that was announced has come and was refused."""
        self._expected = max(0, self._expected - 1)
        self._news.set()

    async def put(self, asked: Asked) -> Answer:
        """The answer to a request. Raises what its batch raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._news.set()
        return await future

    def give_back(self, answer: Answer) -> int:
        """Answer every request that waits, and forget the announcements; returns how many there were."""
        waiting, self._waiting, self._expected = self._waiting, [], 0
        for _, future in waiting:
            if not future.done():
                future.set_result(answer)
        return len(waiting)

    async def serve(self, run: Callable[[list[Asked], Callable[[int, Answer], None]], Awaitable[None]]) -> None:
        """Call ``run(requests, answer)`` for batch after batch; it calls ``answer(place, value)`` for each request."""
        while True:
            batch = await self._collect()

            def answer(place: int, value: Answer, batch: list[tuple[Asked, asyncio.Future[Answer]]] = batch) -> None:
                if not batch[place][1].done():  # cancelled by who asked
                    batch[place][1].set_result(value)

            try:
                await run([asked for asked, _ in batch], answer)
            except Exception as error:
                logger.exception("a batch of %d requests failed", len(batch))
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    async def _collect(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        """The requests announced, or those that came within a moment where none was announced."""
        while not 0 < self._expected <= len(self._waiting):
            self._news.clear()
            idle = self._timeout_seconds if self._expected else GATHER_SECONDS if self._waiting else None
            try:
                await asyncio.wait_for(self._news.wait(), idle)
            except TimeoutError:
                if self._expected:
                    logger.error(
                        "only %d of %d announced requests have come; going on without the rest, so that this run is"
                        " not reproducible. Did an agent loop fail?",
                        len(self._waiting),
                        self._expected,
                    )
                break
        batch, self._waiting, self._expected = self._waiting, [], 0
        return batch
