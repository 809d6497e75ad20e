"""``actor_rollout_ref.rollout.name=transformers``: a rollout server for CPU machines, for verl's V1 trainer.

One server serves all ranks, since which of several would get a prompt depends on the order of arrival:
``tensor_model_parallel_size`` is the number of ranks. Its own settings stand under
``actor_rollout_ref.rollout.engine_kwargs.transformers`` (``ServerOptions``); ``max_num_seqs`` is the rows in the model.
"""

import asyncio
import logging
import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch
from torch import Tensor
from verl.utils import normalize_token_ids
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from mifo_verl.cpu.batcher import Arrivals
from mifo_verl.cpu.generate import Completion, Request, batches, generate_batch
from mifo_verl.cpu.kv_cache import ATTENTION
from mifo_verl.cpu.weights import WeightLoader

ROLLOUT_NAME = "transformers"
SERVER_NAME = "transformers_server_0_0"
"""Ray's name of the server actor."""

MAX_CALLS = 1_000_000
"""Calls that the actor takes at a time: all requests announced have to fit, or they would wait for one another."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """What ``engine_kwargs.transformers`` may hold."""

    num_threads: int = 0
    """Threads of torch; 0 takes every core that the process may use."""
    arrival_timeout_seconds: float = 120.0
    """How long the server waits for the next of the requests announced before it goes on without the rest."""


class TransformersServer:
    """A Ray actor with a model of its own: token ids in, token ids and log-probabilities out."""

    def __init__(self, config: RolloutConfig, model_config: Any) -> None:
        self._config: RolloutConfig = omega_conf_to_dataclass(config)
        self._model_config: HFModelConfig = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        self._options = ServerOptions(**(self._config.engine_kwargs.get(ROLLOUT_NAME) or {}))
        self._arrivals: Arrivals[Request, Completion] = Arrivals(self._options.arrival_timeout_seconds)
        self._unseeded = random.Random(self._config.seed)
        self._global_steps: int | None = None
        num_threads = self._options.num_threads or len(os.sched_getaffinity(0))
        # one thread: weights are never written while a batch is in the model
        self._model_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(num_threads,))

    async def start(self) -> str:
        """Load the model and begin to serve; returns the server's address, which is only a name."""
        await self._in_model_thread(self._load_model)
        self._serving = asyncio.create_task(self._arrivals.serve(self._run))
        return f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def _load_model(self) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(
            self._model_config.local_path,
            config=self._model_config.hf_config,
            dtype=PrecisionType.to_dtype(self._config.dtype),
            attn_implementation=ATTENTION,
            trust_remote_code=self._model_config.trust_remote_code,
        ).eval()
        tokenizer = self._model_config.tokenizer
        from_model = self._model.generation_config.eos_token_id
        eos = {tokenizer.eos_token_id, *(from_model if isinstance(from_model, list) else [from_model])} - {None}
        self._eos_token_ids = frozenset() if self._config.ignore_eos else frozenset(eos)
        self._pad_token_id = tokenizer.pad_token_id or 0
        self._weights = WeightLoader(self._model)

    async def _in_model_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, function, *args)

    # ------------------------------------------------------------------ generation

    async def expect(self, num_requests: int) -> None:
        """Announce requests: none of them is run before all have come."""
        self._arrivals.expect(num_requests)

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
    ) -> TokenOutput:
        """One response. Raises ValueError for images, videos and sampling parameters that are not supported."""
        params = dict(sampling_params)
        with_log_probs = params.pop("logprobs", None) not in (None, False)
        try:
            if image_data or video_data:
                raise ValueError("rollout.name=transformers serves text only")
            request = self._request(normalize_token_ids(prompt_ids), params)
        except Exception:
            self._arrivals.expect_one_less()
            raise
        completion = await self._arrivals.put(request)
        return TokenOutput(
            token_ids=completion.token_ids,
            log_probs=completion.log_probs if with_log_probs else None,
            stop_reason=completion.stop_reason,
            extra_fields={"global_steps": self._global_steps},
        )

    def _request(self, prompt_ids: list[int], params: dict[str, Any]) -> Request:
        """verl's vLLM server reads the parameters in the same way."""
        room = self._config.prompt_length + self._config.response_length - len(prompt_ids)
        max_tokens = params.pop("max_tokens", None) or params.pop("max_new_tokens", None)
        if params.pop("repetition_penalty", 1.0) != 1.0:
            raise ValueError("actor_rollout_ref.rollout.repetition_penalty must be 1.0 where rollout.name=transformers")
        seed = params.pop("seed", None)
        request = Request(
            prompt_ids=tuple(prompt_ids),
            max_tokens=max(1, max_tokens or min(self._config.response_length, room)),
            seed=self._unseeded.getrandbits(63) if seed is None else seed,
            temperature=params.pop("temperature", 1.0),
            top_p=params.pop("top_p", 1.0),
            top_k=params.pop("top_k", -1),
        )
        if params:
            raise ValueError(f"sampling parameters {sorted(params)} are unknown where rollout.name=transformers")
        return request

    async def _run(self, requests: list[Request], answer: Any) -> None:
        for places in batches(requests, self._config.max_num_seqs):
            batch = [requests[place] for place in places]
            completions = await self._in_model_thread(
                generate_batch, self._model, batch, self._pad_token_id, self._eos_token_ids
            )
            for place, completion in zip(places, completions, strict=True):
                answer(place, completion)

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """Give back, empty, the requests that no batch has taken up yet."""
        aborted = self._arrivals.give_back(Completion([], [], "aborted"))
        return {"aborted_count": aborted, "request_ids": []}

    # ------------------------------------------------------------------ weights

    async def load_weights(self, tensors: dict[str, Tensor], last: bool, global_steps: int | None) -> None:
        """Write one bucket of the weights; after the ``last``, every weight has to have come."""
        await self._in_model_thread(self._weights.write, tensors, last)
        if last and global_steps is not None:
            self._global_steps = global_steps

    async def set_global_steps(self, global_steps: int) -> None:
        """The step that the weights are of."""
        self._global_steps = global_steps

    # ------------------------------------------------------------------ nothing to do on a CPU

    async def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return None

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    resume_generation = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):
    """The one server of a run."""

    async def launch_servers(self) -> None:
        """Start the server actor. Raises ValueError where a run asks for a second one."""
        if self.replica_rank != 0:
            raise ValueError(
                f"actor_rollout_ref.rollout.tensor_model_parallel_size={self.config.tensor_model_parallel_size} must be"
                " the number of ranks where rollout.name=transformers; one server serves them all"
            )
        server = ray.remote(TransformersServer).options(name=SERVER_NAME, num_cpus=0, max_concurrency=MAX_CALLS)
        handle = server.remote(self.config, self.model_config)
        self.servers, self._server_handle = [handle], handle
        self._server_address = await handle.start.remote()


class TransformersRollout(BaseRollout):
    """In every actor worker: rank 0 sends the weights to the server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = 0) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = 0
        self.is_leader_rank = int(os.environ["RANK"]) == 0
        self._bucket_bytes = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20

    async def resume(self, tags: list[str]) -> None:
        """Nothing to do on a CPU."""

    async def release(self) -> None:
        """Nothing to do on a CPU."""

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        peft_config: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Send full weights. Every rank has to come here: ``weights`` gathers them from all ranks as it is read."""
        if wire_format != "named_tensors" or peft_config is not None:
            raise ValueError("rollout.name=transformers takes full weights; with LoRA set model.lora.merge=true")
        bucket: dict[str, Tensor] = {}
        num_bytes = 0
        for name, tensor in weights:
            if not self.is_leader_rank:
                continue
            if bucket and num_bytes + tensor.nbytes > self._bucket_bytes:
                await self._send(bucket, False, global_steps)
                bucket, num_bytes = {}, 0
            bucket[name] = tensor.detach().cpu()
            num_bytes += tensor.nbytes
        if self.is_leader_rank:
            await self._send(bucket, True, global_steps)

    async def _send(self, bucket: dict[str, Tensor], last: bool, global_steps: int | None) -> None:
        await ray.get_actor(SERVER_NAME).load_weights.remote(bucket, last, global_steps)


def register() -> None:
    """Make ``rollout.name=transformers`` known to verl, and on a CPU our ``vllm``; again is harmless."""
    RolloutReplicaRegistry.register(ROLLOUT_NAME, lambda: TransformersReplica)
    _ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = f"{__name__}.{TransformersRollout.__name__}"
    if get_device_name() == "cpu":
        RolloutReplicaRegistry.register("vllm", _vllm_replica)


def _vllm_replica() -> type[RolloutReplica]:
    from mifo_verl.cpu.vllm import CpuVllmReplica  # imports vLLM

    return CpuVllmReplica
