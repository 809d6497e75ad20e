"""A rollout server whose responses begin with given tokens."""

import asyncio

import pytest
from verl.workers.rollout.replica import TokenOutput

from mifo_verl.loop.mixed import Given
from mifo_verl.verl.agent_loop import GivenTokens

# a demonstration of four tokens: session 0 is a rollout, session 1 begins with two of them, session 2 is the whole
GIVEN = Given(prompt_ids=(1, 2), response_ids=(5, 6, 7, 8), num_tokens=(0, 2, 4))


class Server:
    """Goes on with 9 and 10."""

    def __init__(self):
        self.asked = []

    async def generate(self, **request):
        self.asked.append(request)
        log_probs = [-0.5, -0.25] if request["sampling_params"]["logprobs"] else None
        return TokenOutput(token_ids=[9, 10], log_probs=log_probs, extra_fields={"global_steps": 6})


def generate(session, prompt_ids=(1, 2), logprobs=True):
    server = Server()
    given = GivenTokens(server, GIVEN, session, response_length=16, global_steps=7)
    sampling = {"temperature": 1.0, "logprobs": logprobs, "seed": 3}
    call = given.generate(request_id="r", prompt_ids=list(prompt_ids), sampling_params=sampling, priority=0)
    return asyncio.run(call), server.asked


def test_a_whole_demonstration_asks_no_server_and_has_the_versions_of_the_weights():
    output, asked = generate(session=2)
    assert asked == [] and output.token_ids == [5, 6, 7, 8] and output.log_probs == [0.0] * 4
    assert output.extra_fields == {"global_steps": 6, "min_global_steps": 6, "max_global_steps": 6}
    assert generate(session=2, logprobs=False)[0].log_probs is None


def test_a_prefix_is_continued_behind_the_prompt_within_what_is_left_of_the_response():
    output, (request,) = generate(session=1)
    assert request["prompt_ids"] == [1, 2, 5, 6] and request["request_id"] == "r" and request["priority"] == 0
    assert request["sampling_params"] == {"temperature": 1.0, "logprobs": True, "seed": 3, "max_tokens": 14}
    assert output.token_ids == [5, 6, 9, 10] and output.log_probs == [0.0, 0.0, -0.5, -0.25]
    assert output.extra_fields == {"global_steps": 6}
    assert generate(session=1, logprobs=False)[0].log_probs is None


def test_a_prompt_of_other_tokens_than_the_demonstration_was_checked_behind_is_refused():
    with pytest.raises(ValueError, match="checked behind 2 prompt tokens, and its rollout has 3 others"):
        generate(session=2, prompt_ids=(1, 2, 3))
