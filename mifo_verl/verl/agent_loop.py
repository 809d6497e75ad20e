"""Rollouts that begin with given tokens: the whole demonstration of a question, or a prefix that is continued."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.replica import TokenOutput

from mifo_verl.loop.mixed import Given, Start

AGENT_NAME = "mifo_prefix"
GIVEN = "mifo_given"
"""The column of questions in a run whose rollouts may begin with given tokens, each a ``Given``;
of a session its ``Start``."""


class Stages:
    """Questions whose sessions start stage after stage: one starts when every session of those before it has ended.

    All questions here go on together. ``announce`` hears how many requests a stage will make before it makes one, but
    for the first stage.
    """

    def __init__(self, questions: Mapping[str, Given], announce: Callable[[int], Awaitable[Any]] | None = None) -> None:
        self._questions = questions
        self._announce = announce
        self._results: dict[str, dict[int, bool]] = {uid: {} for uid in questions}
        self._left = Counter(stage for given in questions.values() for stage in given.stages)
        self._begun = [asyncio.Event() for _ in self._left]
        self._begun[0].set()
        self._next = 1

    async def start(self, uid: str, session: int) -> Start:
        """What a session begins with, once its stage has begun."""
        given = self._questions[uid]
        await self._begun[given.stages[session]].wait()
        return given.start(session, self._results[uid])

    async def end(self, uid: str, session: int, is_correct: bool) -> None:
        """A session has ended, in whatever way; only what is said of it first counts."""
        results, given = self._results[uid], self._questions[uid]
        if session in results:
            return
        results[session] = is_correct
        self._left[given.stages[session]] -= 1
        while self._next < len(self._begun) and not any(self._left[stage] for stage in range(self._next)):
            stage, self._next = self._next, self._next + 1
            try:
                if self._announce is not None:
                    asking = (given.num_asking(stage, self._results[uid]) for uid, given in self._questions.items())
                    await self._announce(sum(asking))
            finally:
                self._begun[stage].set()

    def has_ended(self, uid: str) -> bool:
        """Whether all sessions of a question have."""
        return len(self._results[uid]) == len(self._questions[uid].num_tokens)


class GivenTokens:
    """A rollout server whose responses begin with given tokens; it asks the server behind for what follows them."""

    def __init__(self, server: Any, start: Start, response_length: int, global_steps: int) -> None:
        self._server = server
        self._start = start
        self._room = response_length - len(start.tokens)
        self._weights_of = global_steps - 1

    async def generate(self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **request: Any) -> TokenOutput:
        """The given tokens, at log-probability 0, and what the policy goes on with."""
        prefix = list(self._start.tokens)
        if tuple(prompt_ids) != self._start.prompt_ids:
            raise ValueError(
                f"a demonstration was checked behind {len(self._start.prompt_ids)} prompt tokens, and its rollout has"
                f" {len(prompt_ids)} others; data.apply_chat_template_kwargs must be the same for both"
            )
        asked = bool(sampling_params.get("logprobs"))
        if self._start.is_whole:
            steps = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), self._weights_of)
            log_probs = [0.0] * len(prefix) if asked else None
            return TokenOutput(token_ids=prefix, log_probs=log_probs, stop_reason="completed", extra_fields=steps)
        sampling_params = {**sampling_params, "max_tokens": self._room}
        output = await self._server.generate(
            prompt_ids=[*prompt_ids, *prefix], sampling_params=sampling_params, **request
        )
        output.token_ids = [*prefix, *output.token_ids]
        if output.log_probs is not None:
            output.log_probs = [*([0.0] * len(prefix)), *output.log_probs]
        return output


@register(AGENT_NAME)
class PrefixAgentLoop(SingleTurnAgentLoop):
    """verl's single turn on a server that begins with given tokens, so that every field is a single turn's."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """``kwargs`` are verl's, and ``GIVEN``."""
        start, steps = kwargs[GIVEN], kwargs["global_steps"]
        self.server_manager: Any = GivenTokens(self.server_manager, start, self.response_length, steps)
        return await super().run(sampling_params, **kwargs)
