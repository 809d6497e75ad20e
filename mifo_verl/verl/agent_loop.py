"""Rollouts that begin with given tokens: the whole demonstration of a question, or a prefix that is continued."""

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.replica import TokenOutput

from mifo_verl.loop.mixed import Given

AGENT_NAME = "mifo_prefix"
GIVEN = "mifo_given"
"""The column of questions in a run whose rollouts may begin with given tokens: a ``Given`` each."""


class GivenTokens:
    """A rollout server whose responses begin with given tokens; it asks the server behind for what follows them."""

    def __init__(self, server: Any, given: Given, session: int, response_length: int, global_steps: int) -> None:
        self._server = server
        self._given = given
        self._prefix = list(given.response_ids[: given.num_tokens[session]])
        self._is_whole = len(self._prefix) == len(given.response_ids)
        self._room = response_length - len(self._prefix)
        self._weights_of = global_steps - 1

    async def generate(self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **request: Any) -> TokenOutput:
        """The given tokens, at log-probability 0, and what the policy goes on with."""
        if tuple(prompt_ids) != self._given.prompt_ids:
            raise ValueError(
                f"a demonstration was checked behind {len(self._given.prompt_ids)} prompt tokens, and its rollout has"
                f" {len(prompt_ids)} others; data.apply_chat_template_kwargs must be the same for both"
            )
        asked = bool(sampling_params.get("logprobs"))
        if self._is_whole:
            steps = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), self._weights_of)
            log_probs = [0.0] * len(self._prefix) if asked else None
            return TokenOutput(token_ids=self._prefix, log_probs=log_probs, stop_reason="completed", extra_fields=steps)
        sampling_params = {**sampling_params, "max_tokens": self._room}
        output = await self._server.generate(
            prompt_ids=[*prompt_ids, *self._prefix], sampling_params=sampling_params, **request
        )
        output.token_ids = [*self._prefix, *output.token_ids]
        if output.log_probs is not None:
            output.log_probs = [*([0.0] * len(self._prefix)), *output.log_probs]
        return output


@register(AGENT_NAME)
class PrefixAgentLoop(SingleTurnAgentLoop):
    """verl's single turn on a server that begins with given tokens, so that every field is a single turn's."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """``kwargs`` are verl's, and ``GIVEN``."""
        given, session, steps = kwargs[GIVEN], kwargs["session_id"], kwargs["global_steps"]
        self.server_manager: Any = GivenTokens(self.server_manager, given, session, self.response_length, steps)
        return await super().run(sampling_params, **kwargs)
