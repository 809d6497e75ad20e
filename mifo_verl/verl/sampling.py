"""The same seed, the same rollouts: every response has a random stream of its own, whatever the order of arrival.

A stream is named by the training step and the uid of the prompt, which the trainer keeps the same in every run; in
validation by the prompt itself, since verl draws its validation uids at random. Two validations of the same data
thus share their streams, so that their difference is the weights' alone.
Chosen by ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``. vLLM gets the seeds where
``rollout.full_determinism`` is set, since a seed of its own slows the sampling of every request there.
"""

from collections.abc import Mapping
from typing import Any

import ray
from tensordict import TensorDict
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils import tensordict_utils as tu

from mifo_verl.cpu.rollout import ROLLOUT_NAME, SERVER_NAME
from mifo_verl.loop.mixed import Given
from mifo_verl.loop.streams import stable_seed, training_streams, validation_streams
from mifo_verl.method.accuracy import count_correct
from mifo_verl.verl.agent_loop import AGENT_NAME, GIVEN, Stages
from mifo_verl.verl.demonstrations import correctness
from mifo_verl.verl.lean_loops import make_loops_lean
from mifo_verl.verl.rl_loss import FIRST, PREFIX

STREAM = "mifo_stream"
"""The column with the name of a prompt's random stream. It goes no further than the agent loop worker."""
SAMPLING = "mifo_sampling"
"""The column with what a prompt's rollouts are sampled with, where it is not the run's own. No further either."""


def sampled_with(run: Mapping[str, Any], step: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """The sampling parameters of one request: the run's as verl gives them, the step's own over them, and its seed."""
    return {**run, **step} if seed is None else {**run, **step, "seed": seed}


class SeededAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's worker; every session of a prompt samples with a seed of its own, some behind given tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        make_loops_lean()
        self._stages: dict[str, Stages] = {}

    async def generate_sequences(self, batch: TensorDict) -> None:
        """verl's; the questions whose rollouts may begin with given tokens go from stage to stage.

        Each by itself, but on a ``transformers`` server all together: it runs announced requests in one order alone.
        """
        given = dict(zip(tu.get(batch, "uid"), tu.get(batch, GIVEN, []), strict=False))
        if self.rollout_config.name == ROLLOUT_NAME and given:
            self._stages |= dict.fromkeys(given, Stages(given, ray.get_actor(SERVER_NAME).expect.remote))
        else:
            self._stages |= {uid: Stages({uid: own}) for uid, own in given.items()}
        await super().generate_sequences(batch)

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        seed = stable_seed(self.rollout_config.seed, kwargs.pop(STREAM), kwargs["session_id"])
        is_seeded = self.rollout_config.name == ROLLOUT_NAME or self.rollout_config.full_determinism
        sampling_params = sampled_with(sampling_params, kwargs.pop(SAMPLING, {}), seed if is_seeded else None)
        if GIVEN not in kwargs:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        uid, session = kwargs["uid"], kwargs["session_id"]
        stages = self._stages[uid]
        try:
            kwargs[GIVEN] = await stages.start(uid, session)
            if kwargs[GIVEN].tokens:
                kwargs["agent_name"] = AGENT_NAME
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        finally:
            await stages.end(uid, session, is_correct=False)  # unless its reward is in: it has failed
            if stages.has_ended(uid):
                self._stages.pop(uid, None)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        """Put a rollout into TransferQueue; where rollouts may begin with given tokens, with the number of these.

        TransferQueue hands out only columns that all rows have, so every row of such a run gets it.
        """
        start, uid = kwargs.pop(GIVEN, None), kwargs["uid"]
        if start is None:
            await super()._agent_loop_postprocess(output, validate, **kwargs)
            return
        kwargs |= {PREFIX: len(start.tokens), FIRST: int(start.is_first)}
        output.extra_fields[PREFIX] = kwargs[PREFIX]  # the loop counts the rollouts by this
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        correct = count_correct([(uid, correctness(output.extra_fields), False)])[uid]
        await self._stages[uid].end(uid, kwargs["session_id"], correct == (1, 1))


class MifoAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager; it names the random streams, and tells a ``transformers`` server how many requests will come."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededAgentLoopWorker)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Hand the prompts to the agent loops; the rollouts go to TransferQueue."""
        validate = tu.get(prompts, "validate", False)
        if validate:
            streams = validation_streams(tu.get(prompts, "raw_prompt"), tu.get(prompts, "index"))
        else:
            streams = training_streams(tu.get(prompts, "global_steps"), tu.get(prompts, "uid"))
        prompts = prompts.copy()
        tu.assign_non_tensor_stack(prompts, STREAM, streams)
        if self.rollout_config.name == ROLLOUT_NAME:
            ray.get(ray.get_actor(SERVER_NAME).expect.remote(self._num_requests(prompts, validate)))
        super().generate_sequences(prompts)

    def _num_requests(self, prompts: TensorDict, validate: bool) -> int:
        each = self.rollout_config.val_kwargs.n if validate else self.rollout_config.n
        asked = sum(int(n) for n in tu.get(prompts, "__rollout_n__", [each] * len(prompts)))
        given: list[Given] = [] if validate else tu.get(prompts, GIVEN, [])
        return int(asked) - sum(len(one.num_tokens) - one.num_asking(0, {}) for one in given)
