"""A chat endpoint (vLLM, SGLang, any OpenAI-compatible one) that may fail, be slow, or ask to be left alone a while."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from mifo_verl.types import require, require_count, require_positive

API_KEY = "OPENAI_API_KEY"
"""The environment variable with the endpoint's key, where it wants one."""
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_WRONG_SETTING = (401, 403, 404)
_TRY_AGAIN = (408, 409, 429)


class EndpointError(ValueError):
    """The endpoint cannot be used at all: what the user has to change before another request makes sense."""


class Unanswered(Exception):
    """One request got no answer in all its tries."""


class _Again(Exception):
    """A try that failed and may not fail again; ``wait_seconds`` where the server said how long to wait."""

    def __init__(self, problem: str, wait_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Answer:
    """What the model wrote. ``cut`` where it ended at the most tokens allowed."""

    text: str
    cut: bool


@dataclass(frozen=True)
class Endpoint:
    """Where the stronger model is and how patiently it is asked."""

    url: str
    """Up to and with ``/v1``."""
    model: str
    timeout_seconds: float = 600.0
    retries: int = 5
    concurrency: int = 16
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        require(
            parts.scheme in ("http", "https") and bool(parts.netloc),
            "endpoint",
            self.url,
            "an http address such as http://localhost:8000/v1",
            "start one with: vllm serve <model>",
        )
        require_positive("timeout", self.timeout_seconds, "seconds for one answer")
        require_count("concurrency", self.concurrency, "requests at a time")
        require(self.retries >= 0, "retries", self.retries, "at least 0", "0 asks once")

    @property
    def source(self) -> str:
        """The name of the source for records: the model and the host, without user, password or query."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{self.model} at {parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"

    def client(self) -> httpx.AsyncClient:
        """A client to ask with; close it afterwards."""
        key = os.environ.get(API_KEY)
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self.timeout_seconds, connect=min(30.0, self.timeout_seconds)),
            limits=httpx.Limits(max_connections=None),  # ``concurrency`` is kept where requests begin
        )

    async def ask(
        self, client: httpx.AsyncClient, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]
    ) -> Answer:
        """One answer, within ``1 + retries`` tries. The whole try, not only each read, ends at the time limit.

        A rate limit, an error of the server, a time-out, a broken connection or a malformed reply is tried again after
        1, 2, 4, ... up to 60 s, or as long as ``Retry-After`` says (also at most 60 s). Raises Unanswered where no try
        helped or the request itself is refused, EndpointError where the address, the key or the model is wrong.
        """
        body = {"model": self.model, "messages": [dict(message) for message in messages], **sampling}
        problem = ""
        for attempt in range(1 + self.retries):
            try:
                return await self._ask_once(client, body)
            except _Again as again:
                problem = str(again)
                if attempt < self.retries:
                    doubled = min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)
                    await self.sleep(doubled if again.wait_seconds is None else again.wait_seconds)
        raise Unanswered(problem)

    async def _ask_once(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> Answer:
        """One try; raises _Again where another one may help."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                reply = await client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            if reply.status_code == 200:
                return _read(reply.json())
        except (httpx.HTTPError, TimeoutError) as error:
            raise _Again(f"{type(error).__name__} {error}".strip()) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _Again(f"a reply without an answer ({type(error).__name__})") from None
        problem = f"{reply.status_code}: {reply.text.strip()[:200]}"
        if reply.status_code in _WRONG_SETTING:
            raise EndpointError(
                f"endpoint={self.url} must serve model={self.model} to this key ({API_KEY}); it answers {problem}"
            )
        if reply.status_code < 500 and reply.status_code not in _TRY_AGAIN:
            raise Unanswered(problem)  # refused as it stands: asking again changes nothing
        raise _Again(problem, _retry_after(reply))


def _read(reply: Any) -> Answer:
    """The answer of a reply; reasoning that the server took out of it is put back between its tags."""
    choice = reply["choices"][0]
    message = choice["message"]
    reasoning, content = message.get("reasoning_content") or message.get("reasoning"), message.get("content") or ""
    text = f"<think>\n{reasoning.strip()}\n</think>\n\n{content.strip()}" if reasoning else content
    return Answer(str(text), choice.get("finish_reason") == "length")


def _retry_after(reply: httpx.Response) -> float | None:
    """The seconds that the server asks for; a date, which is allowed too, is not read."""
    try:
        return min(float(reply.headers["Retry-After"]), _LONGEST_WAIT_SECONDS)
    except (KeyError, ValueError):
        return None
