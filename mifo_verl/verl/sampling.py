"""The same seed, the same rollouts: every response has a random stream of its own, whatever the order of arrival.

A stream is named by the training step and the uid of the prompt, which the trainer keeps the same in every run; in
validation by the prompt itself, since verl draws its validation uids at random. Two validations of the same data
thus share their streams, so that their difference is the weights' alone.
Chosen by ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``. vLLM gets the seeds where
``rollout.full_determinism`` is set, since a seed of its own slows the sampling of every request there.
"""

from typing import Any

import ray
from tensordict import TensorDict
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils import tensordict_utils as tu

from mifo_verl.cpu.rollout import ROLLOUT_NAME, SERVER_NAME
from mifo_verl.loop.streams import stable_seed, training_streams, validation_streams
from mifo_verl.verl.agent_loop import AGENT_NAME, GIVEN
from mifo_verl.verl.rl_loss import PREFIX

STREAM = "mifo_stream"
"""The column with the name of a prompt's random stream. It goes no further than the agent loop worker."""


class SeededAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's worker; every session of a prompt samples with a seed of its own, some behind given tokens."""

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        seed = stable_seed(self.rollout_config.seed, kwargs.pop(STREAM), kwargs["session_id"])
        if self.rollout_config.name == ROLLOUT_NAME or self.rollout_config.full_determinism:
            sampling_params = {**sampling_params, "seed": seed}
        if GIVEN in kwargs and kwargs[GIVEN].num_tokens[kwargs["session_id"]]:
            kwargs["agent_name"] = AGENT_NAME
        return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        """Put a rollout into TransferQueue; where rollouts may begin with given tokens, with the number of these.

        TransferQueue hands out only columns that all rows have, so every row of such a run gets it.
        """
        if (given := kwargs.pop(GIVEN, None)) is not None:
            kwargs[PREFIX] = given.num_tokens[kwargs["session_id"]]
            output.extra_fields[PREFIX] = kwargs[PREFIX]  # HardPrompts counts the rollouts by this
        await super()._agent_loop_postprocess(output, validate, **kwargs)


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
        return int(asked) - sum(given.num_whole() for given in tu.get(prompts, GIVEN, []))
