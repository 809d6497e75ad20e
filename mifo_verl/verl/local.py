"""A run's ranks without Ray: every process is one rank of verl's worker, and runs the same controller as the others.

``Actor`` speaks to ``LocalGroup`` as to verl's worker group; worker, engine, SFT step and probes are those of a run.
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from verl.single_controller.base.decorator import MAGIC_ATTR, Dispatch
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils import hf_tokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.reward_score import default_compute_score

from mifo_verl.config import build_config
from mifo_verl.loop.state import FOLDER
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.adapter import prepare_model
from mifo_verl.verl.demonstrations import Demonstrations
from mifo_verl.verl.worker import MifoWorker


def be_a_rank() -> None:
    """Where no launcher has said which rank this process is, it is the only one."""
    if "WORLD_SIZE" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in own.items()})


class LocalGroup:
    """verl's worker group, seen from inside of one of its ranks. Every call is collective."""

    def __init__(self, worker: MifoWorker) -> None:
        self._worker = worker
        self._dispatch_info: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._worker, name)
        to_all = getattr(method, MAGIC_ATTR)["dispatch_mode"] is Dispatch.ONE_TO_ALL

        def call(*args: Any) -> Any:
            """What every rank returns, as a list; of a batch that is dealt out, what came of the whole, if anything."""
            if to_all:
                return gathered(method(*args))
            ranks = self._dispatch_info["actor"]
            parts = tu.chunk_tensordict(args[0], max(ranks) + 1)
            found = gathered(method(parts[ranks[dist.get_rank()]]))
            return next((one for one in found if one is not None), None)

        return call


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, in their order."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


class LocalActor(Actor):
    """The ranks of a checkpoint, as they were when it was made. ``be_a_rank`` and the run's environment come first."""

    def __init__(self, config: DictConfig, checkpoint: Path | None) -> None:
        """``config`` is the run's, with the settings of ``mifo`` that are to hold. Without a checkpoint the weights are
        those of its model. Raises ValueError if the checkpoint is of another number of ranks.
        """
        settings, mifo = config.actor_rollout_ref, OmegaConf.to_container(config.mifo, resolve=True)
        prepare_model(settings.model, build_config(mifo))  # type: ignore[arg-type]
        torch.manual_seed(0)  # a new adapter
        with redirect_stdout(sys.stderr):  # verl tells of every module that it builds
            self._worker = MifoWorker(settings, role="actor")
            self._worker.init_model()
        super().__init__(
            LocalGroup(self._worker), settings.actor, self._worker.actor.model_config.tokenizer.pad_token_id
        )
        self.configure(mifo)  # type: ignore[arg-type]
        if checkpoint is not None:
            self._worker.load_checkpoint(str(checkpoint / "actor"))
            self.load(checkpoint / FOLDER)

    @property
    def is_first(self) -> bool:
        """Whether this process is the rank that writes and asks."""
        return dist.get_rank() == 0

    def weights(self) -> dict[str, Tensor]:
        """The whole weights by their names in a Hugging Face folder, tied ones once, on the host. Collective."""
        engine = self._worker.actor.engine
        found, _ = engine.get_per_tensor_param()
        whole = {name: weight.detach().to("cpu", copy=True) for name, weight in found}
        if engine.model_config.hf_config.tie_word_embeddings:
            whole.pop("lm_head.weight", None)
        return whole


def demonstrations_of(config: DictConfig) -> Demonstrations:
    """How a run renders, encodes and judges."""
    model = config.actor_rollout_ref.model
    tokenizer = hf_tokenizer(model.get("tokenizer_path") or model.path)
    score = get_custom_reward_fn(config) or default_compute_score
    template = config.data.get("apply_chat_template_kwargs", {})
    return Demonstrations(tokenizer, score, config.data.max_response_length, template)
