"""A rollout server whose responses begin with given tokens."""

import asyncio

import pytest
from verl.workers.rollout.replica import TokenOutput

from mifo_verl.loop.mixed import Given
from mifo_verl.verl.agent_loop import GivenTokens, Stages
from mifo_verl.verl.sampling import sampled_with

# a demonstration of four tokens: session 0 is a rollout, session 1 begins with two of them, session 2 is the whole
GIVEN = Given(prompt_ids=(1, 2), response_ids=(5, 6, 7, 8), num_tokens=((0,), (2,), (4,)))


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
    given = GivenTokens(server, GIVEN.start(session, {}), response_length=16, global_steps=7)
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


# two sessions, one that begins with two tokens if both fail, one with all of them unless all three are right
STAGED = Given((1, 2), (5, 6, 7, 8), ((0,), (0,), (2, 0, 0), (4, 4, 4, 0)))


async def play(stages, results, ended):
    """Every session of every question at once; what each began with. A result of None is a session that raises."""
    begun = {}

    async def play_one(uid, session, result):
        try:
            begun[uid, session] = len((await stages.start(uid, session)).tokens)
            await asyncio.sleep(0.001 * (7 * session % 3))
            if result is None:
                raise RuntimeError("no server")
            ended.append((uid, session))
            await stages.end(uid, session, result)
        finally:
            await stages.end(uid, session, False)

    tasks = [play_one(uid, session, result) for uid, own in results.items() for session, result in enumerate(own)]
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=10)
    return begun


def test_a_stage_begins_when_all_sessions_before_it_have_ended_and_its_requests_are_announced_first():
    announced, ended = [], []

    async def announce(number):
        announced.append((number, len(ended)))

    questions = {"a": STAGED, "b": STAGED, "c": Given((), (), ((0,),) * 4)}
    results = {"a": [False, False, False, True], "b": [True, True, True, True], "c": [True] * 4}
    stages = Stages(questions, announce)
    begun = asyncio.run(play(stages, results, ended))
    assert [begun["a", session] for session in range(4)] == [0, 0, 2, 4]
    assert [begun["b", session] for session in range(4)] == [0, 0, 0, 0] and begun["c", 3] == 0
    # behind 2 + 2 + 4 sessions one of a and one of b; then b's alone, since a has its demonstration
    assert announced == [(2, 8), (1, 10)]
    assert all(stages.has_ended(uid) for uid in questions)


def test_a_session_that_fails_is_not_correct_and_holds_nobody_up():
    begun = asyncio.run(play(Stages({"a": STAGED}), {"a": [True, None, None, True]}, []))
    assert [begun["a", session] for session in range(4)] == [0, 0, 0, 4]  # 1 of 2 is right, then 1 of 3


def test_a_session_that_is_cancelled_while_it_waits_holds_nobody_up():
    async def cancel():
        stages = Stages({"a": STAGED})

        async def waiting():
            try:
                await stages.start("a", 2)
            finally:
                await stages.end("a", 2, False)

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for session in range(2):
            await stages.end("a", session, True)
        return await asyncio.wait_for(stages.start("a", 3), timeout=5)

    assert asyncio.run(cancel()).is_whole


def test_a_server_that_cannot_be_told_holds_nobody_up():
    async def announce(number):
        raise ConnectionError

    begun = asyncio.run(play(Stages({"a": STAGED}, announce), {"a": [False] * 4}, []))
    assert begun["a", 3] == 4


def test_a_request_has_the_runs_parameters_the_steps_over_them_and_its_own_seed():
    run = {"temperature": 1.0, "top_p": 0.9, "logprobs": True}
    assert sampled_with(run, {}, None) == run
    step = {"temperature": 0.8, "max_tokens": 16}
    assert sampled_with(run, step, 3) == {
        "temperature": 0.8,
        "top_p": 0.9,
        "logprobs": True,
        "max_tokens": 16,
        "seed": 3,
    }
    assert run["temperature"] == 1.0
