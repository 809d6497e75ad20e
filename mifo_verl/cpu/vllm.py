"""verl's own vLLM servers on a machine without a GPU: ``hardware=cpu_vllm``, in the environment of ``make vllm``.

vLLM on a CPU packs linear weights, so that the parameters which verl would write into are empty: all buckets are
gathered first and loaded as from a file. What else it needs stands in ``trainer_configs/hardware/cpu_vllm.yaml``.
"""

from typing import Any

import ray
import torch
from torch import Tensor
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """In vLLM's worker: takes the actor's weights."""

    def update_weights_from_ipc(
        self, peft_config: dict[str, Any] | None = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """All buckets, then the weights into the model."""
        weights: list[tuple[str, Tensor]] = []

        def keep(bucket: Any, is_last: bool) -> None:
            weights.extend((name, tensor.clone()) for name, tensor in bucket)  # the next bucket overwrites this one

        device = torch.device("cpu")
        receiver = BucketedWeightReceiver(zmq_handle=self._get_zmq_handle(), device=device, use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=keep)
        self.model_runner.reload_weights(weights_iterator=iter(weights))


class CpuVllmServer(vLLMHttpServer):
    """verl's server, whose workers have the extension of above."""

    def _get_worker_extension_cls(self) -> str:
        return f"{__name__}.{CpuWorkerExtension.__name__}"


class CpuVllmReplica(vLLMReplica):
    """verl's replica, of such servers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuVllmServer)
