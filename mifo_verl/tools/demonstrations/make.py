"""From rows without a verified demonstration to rows with one: ask, verify, keep the first that is right."""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import openai

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.errors import require
from mifo_verl.loop.streams import stable_seed
from mifo_verl.rewards.kinds import Scorer
from mifo_verl.tools.demonstrations.client import Answer, Endpoint, Unanswered
from mifo_verl.tools.keyed_lines import KeyedLines

DATASET = "dataset"
"""The source of a demonstration that came with the row."""
ANSWER_FIELDS = ("text", "cut")
"""What the cache keeps of an answer."""
_ORDER = ("had one", "made", "wrong", "too long", "unanswered")
_GIVE_UP_AFTER = 10
"""Requests in a row without an answer after which the endpoint counts as down."""


SELF_DISTILL = """{question}

Here is a reference solution:

{reference}

Now solve the problem in your own words, step by step, as if you had found the solution yourself. Do not mention the \
reference solution. End with the final answer in the form that the problem asks for."""
"""The template of self-distillation fine-tuning (arXiv 2402.13669), in our words."""
MENTION = re.compile(r"\b(?:reference|given|provided|original) (?:solution|answer)\b", re.IGNORECASE)
"""Where an answer speaks of what it was shown, which no prompt of a run shows."""


@dataclass(frozen=True)
class Made:
    """What becomes of a row: its demonstration's text and source, or the reason why it has none."""

    text: str | None
    source: str | None
    reason: str
    reference_sha256: str | None = None
    """Of the demonstration that this one rewrites; None if it rewrites none."""


@dataclass(frozen=True)
class Maker:
    """How demonstrations are asked for. ``tries`` answers a question at most; the first that verifies is kept."""

    endpoint: Endpoint
    cache: KeyedLines
    scorer: Scorer
    sampling: Mapping[str, Any]
    tries: int = 4
    seed: int = 0
    everyone: bool = False
    """Also ask for rows whose own demonstration verifies."""
    template: str | None = None
    """Rewrite verified demonstrations: the text of the last message, with {question} and {reference} in it."""

    def __post_init__(self) -> None:
        require(self.tries >= 1, "tries", self.tries, "at least 1", "4 is the default")
        fits = self.template is None or all(f"{{{name}}}" in self.template for name in ("question", "reference"))
        require(
            fits, "template", repr(self.template), "a text with {question} and {reference}", "see template=self_distill"
        )

    async def make(self, rows: Sequence[Mapping[str, Any]], on_row: Callable[[Made], None]) -> list[Made]:
        """What becomes of each row, in their order; ``on_row`` hears of each as it is done.

        Raises EndpointError, and ValueError where ten requests in a row, or all, got no answer.
        """
        failures = _Failures(self.endpoint)

        async def one(client: openai.AsyncOpenAI, row: Mapping[str, Any]) -> Made:
            made = await self._make_one(client, row, failures)
            on_row(made)
            return made

        found = await self.endpoint.each(rows, one)
        failures.end()
        return found

    async def _make_one(self, client: openai.AsyncOpenAI, row: Mapping[str, Any], failures: "_Failures") -> Made:
        own = demonstration_of(row)
        if self.template is not None:
            return await self._rewrite(client, row, failures)
        if own is not None and await self._is_correct(row, own.text):
            kept = Made(own.text, str(row.get("target_source") or DATASET), "had one")
            if not self.everyone:
                return kept
            made = await self._ask(client, row, failures)
            return kept if made.text is None else made
        return await self._ask(client, row, failures)

    async def _rewrite(self, client: openai.AsyncOpenAI, row: Mapping[str, Any], failures: "_Failures") -> Made:
        """The policy's own wording of a verified demonstration; the demonstration itself if none verifies."""
        own = demonstration_of(row)
        if own is None:
            return Made(None, None, "without a reference")
        source = str(row.get("target_source") or DATASET)
        if not await self._is_correct(row, own.text):
            return Made(own.text, source, "without a reference")
        *before, last = row["prompt"]
        content = str(self.template).replace("{reference}", own.text).replace("{question}", last["content"])
        made = await self._ask(client, {**row, "prompt": [*before, {**last, "content": content}]}, failures)
        if made.text is None:
            return Made(own.text, source, f"kept, its rewriting {made.reason}")
        digest = hashlib.sha256(own.text.encode()).hexdigest()
        return Made(made.text, f"policy:{made.source}", "rewritten", digest)

    async def _ask(self, client: openai.AsyncOpenAI, row: Mapping[str, Any], failures: "_Failures") -> Made:
        """The first answer that verifies, or why there is none."""
        reason = "wrong"
        for attempt in range(self.tries):
            try:
                answer = await self._answer(client, row, attempt)
            except Unanswered as error:
                failures.count(str(error))
                return Made(None, None, "unanswered")
            failures.clear()
            if answer.cut:  # a demonstration is never cut
                reason = "too long"
            elif self.template is not None and MENTION.search(answer.text):
                reason = "speaks of the reference"
            elif await self._is_correct(row, answer.text):
                return Made(answer.text, self.endpoint.source, "made")
        return Made(None, None, reason)

    async def _answer(self, client: openai.AsyncOpenAI, row: Mapping[str, Any], attempt: int) -> Answer:
        """An answer from the cache, else from the endpoint."""
        prompt_id = prompt_id_of(row)
        sampling = {**self.sampling, "seed": stable_seed(self.seed, prompt_id, attempt) % 2**31}
        key = request_key(self.endpoint.source, row["prompt"], sampling)
        known = self.cache.get(key)
        if known is not None:
            return Answer(known["text"], known["cut"])
        answer = await self.endpoint.ask(client, row["prompt"], sampling)
        if key not in self.cache:  # rows that agree in prompt and id share their answers
            self.cache.put(key, {"prompt_id": prompt_id, **asdict(answer)})
        return answer

    async def _is_correct(self, row: Mapping[str, Any], text: str) -> bool:
        """The run's own reward, in a thread: a slow check must not hold up the answers that come in."""
        truth = str((row.get("reward_model") or {}).get("ground_truth"))
        return bool(text.strip()) and (await asyncio.to_thread(self.scorer, text, truth, row)).correct


def request_key(source: str, messages: Sequence[Mapping[str, str]], sampling: Mapping[str, Any]) -> str:
    """The name of a request, 32 hex digits; ``sampling`` holds its seed, so that every try has its own."""
    parts = [source, [dict(message) for message in messages], dict(sorted(sampling.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class _Failures:
    """Requests without an answer, one after another."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._number, self._problem, self._answered = endpoint, 0, "", False

    def clear(self) -> None:
        self._number, self._answered = 0, True

    def count(self, problem: str) -> None:
        self._number, self._problem = self._number + 1, problem
        if self._number >= _GIVE_UP_AFTER:
            self._give_up()

    def end(self) -> None:
        """Raises where there were questions and none of them was answered, however few they were."""
        if self._number and not self._answered:
            self._give_up()

    def _give_up(self) -> None:
        raise ValueError(
            f"endpoint={self._endpoint.url} must answer; {self._number} questions in a row got none, the last because "
            f"of: {self._problem}; what was answered is kept, so start again when it is up"
        )


def count_reasons(made: Sequence[Made]) -> dict[str, int]:
    """How many rows ended how, in a fixed order; where demonstrations were rewritten, by the alphabet."""
    counts = Counter(one.reason for one in made)
    if counts.keys() - set(_ORDER):
        return dict(sorted(counts.items()))
    return {reason: counts[reason] for reason in _ORDER}
