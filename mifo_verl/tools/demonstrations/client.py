"""A chat endpoint (vLLM, SGLang, any OpenAI-compatible one) that may fail, be slow, or ask to be left alone a while."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from mifo_verl.errors import require, require_count, require_positive

T = TypeVar("T")
Item = TypeVar("Item")

API_KEY = "OPENAI_API_KEY"
"""The environment variable with the endpoint's key, if it wants one."""
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_WRONG_SETTING = (401, 403, 404)
_TRY_AGAIN = (408, 409, 429)


class EndpointError(ValueError):
    """The endpoint cannot be used at all: what the user has to change before another request makes sense."""


class Unanswered(Exception):
    """One request got no answer in all its tries."""


@dataclass(frozen=True)
class Answer:
    """What the model wrote. ``cut`` if it ended at the most tokens allowed."""

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

    def client(self) -> openai.AsyncOpenAI:
        """A client to ask with; close it afterwards. It never tries again by itself: ``ask`` does."""
        key = os.environ.get(API_KEY) or "none"
        return openai.AsyncOpenAI(base_url=self.url, api_key=key, timeout=self.timeout_seconds, max_retries=0)

    async def each(self, items: Iterable[Item], ask: Callable[[openai.AsyncOpenAI, Item], Awaitable[T]]) -> list[T]:
        """What ``ask`` returns for every item, in their order, ``concurrency`` at a time.

        Raises the first error alone: it is the cause of the others.
        """
        places = asyncio.Semaphore(self.concurrency)

        async def one(client: openai.AsyncOpenAI, item: Item) -> T:
            async with places:
                return await ask(client, item)

        try:
            async with self.client() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(client, item)) for item in items]
        except BaseExceptionGroup as found:
            raise found.exceptions[0] from None
        return [task.result() for task in tasks]

    async def ask(
        self, client: openai.AsyncOpenAI, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]
    ) -> Answer:
        """One answer; raises as ``patiently``."""
        body: Any = {"model": self.model, "messages": [dict(message) for message in messages], **sampling}

        async def request() -> Answer:
            return _read(await client.chat.completions.create(**body))

        return await self.patiently(request)

    async def log_probs(self, client: openai.AsyncOpenAI, ids: Sequence[int], text: str) -> list[float]:
        """log p of every token behind the first, by the model itself (vLLM's ``prompt_logprobs``).

        Raises ValueError if these ids are another text than ``text`` to the endpoint's tokenizer, else as ``patiently``.
        """
        root = self.url.rstrip("/").removesuffix("/v1")
        body: Any = {"model": self.model, "prompt": list(ids), "max_tokens": 1, "extra_body": {"prompt_logprobs": 0}}

        async def request() -> list[float]:
            reply = await client.completions.create(**body)
            by_token = (reply.choices[0].model_extra or {})["prompt_logprobs"]
            return [found[str(token)]["logprob"] for token, found in zip(ids[1:], by_token[1:], strict=True)]

        async def decoded() -> str:
            asked = {"model": self.model, "tokens": list(ids)}
            reply: Any = await client.post(f"{root}/detokenize", body=asked, cast_to=object)
            return str(reply["prompt"])

        theirs = await self.patiently(decoded)
        if theirs != text:
            raise EndpointError(
                f"endpoint={self.url} must serve a teacher with the policy's own tokenizer: it reads {theirs[-60:]!r} "
                f"where that has {text[-60:]!r}; take a teacher of the same family"
            )
        return await self.patiently(request)

    async def patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        """What a request returns, within ``1 + retries`` tries. The whole try, not only each read, ends at the time limit.

        A rate limit, an error of the server, a time-out, a broken connection or a malformed reply is tried again after
        1, 2, 4, ... up to 60 s, or as long as ``Retry-After`` says (also at most 60 s). Raises Unanswered if no try
        helped or the request itself is refused, EndpointError if the address, the key or the model is wrong.
        """
        problem = ""
        for attempt in range(1 + self.retries):
            wait = min(_FIRST_WAIT_SECONDS * 2**attempt, _LONGEST_WAIT_SECONDS)
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await request()
            except openai.APIStatusError as error:
                problem = self._problem(error)
                wait = _retry_after(error) or wait
            except (openai.APIConnectionError, TimeoutError) as error:
                problem = f"{type(error).__name__} {error}".strip()
            except (openai.APIError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                problem = f"a reply without an answer ({type(error).__name__})"
            if attempt < self.retries:
                await self.sleep(wait)
        raise Unanswered(problem)

    def _problem(self, error: openai.APIStatusError) -> str:
        """What the server said, if asking again may help; raises if it does not."""
        problem = f"{error.status_code}: {error.response.text.strip()[:200]}"
        if error.status_code in _WRONG_SETTING:
            raise EndpointError(
                f"endpoint={self.url} must serve model={self.model} to this key ({API_KEY}); it answers {problem}"
            ) from None
        if error.status_code < 500 and error.status_code not in _TRY_AGAIN:
            raise Unanswered(problem) from None
        return problem


def _read(reply: Any) -> Answer:
    """The answer of a reply; reasoning that the server took out of it is put back between its tags."""
    choice = reply.choices[0]
    extra = choice.message.model_extra or {}
    reasoning, content = extra.get("reasoning_content") or extra.get("reasoning"), choice.message.content or ""
    text = f"<think>\n{reasoning.strip()}\n</think>\n\n{content.strip()}" if reasoning else content
    return Answer(str(text), choice.finish_reason == "length")


def _retry_after(error: openai.APIStatusError) -> float | None:
    """The seconds that the server asks for; a date, which is allowed too, is not read."""
    try:
        return min(float(error.response.headers["Retry-After"]), _LONGEST_WAIT_SECONDS)
    except (KeyError, ValueError):
        return None
