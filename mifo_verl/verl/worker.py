"""The actor's Ray worker: verl's hybrid worker, whose actor also takes SFT updates on the same FSDP shards."""

import hashlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name, get_torch_device
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from mifo_verl.config import build_config
from mifo_verl.cpu import rollout
from mifo_verl.probes.step import SumsOfBatch
from mifo_verl.verl.engine import COMPARED, MifoEngine, register_engines
from mifo_verl.verl.own_step import LogProbsOfBatch, OwnLossOfBatch
from mifo_verl.verl.rl_loss import rl_loss
from mifo_verl.verl.sft_step import SFT_LR, SftLossOfBatch
from mifo_verl.verl.staging import TO_EVERY_RANK, Taken


class MifoTrainingWorker(TrainingWorker):
    """verl's training worker on any device that mifo_verl knows, with reproducible initial weights."""

    def __init__(self, config: Any) -> None:
        register_engines()
        if get_device_name() == "cpu" and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(  # verl would ask for cpu:gloo,cpu:gloo
                "gloo",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
                init_method=os.environ.get("DIST_INIT_METHOD"),
            )
        torch.manual_seed(config.engine_config.seed)  # a critic's new value head
        super().__init__(config)


class MifoWorker(ActorRolloutRefWorker):
    """Actor, SFT, reference and rollout adapter in one process. Every method below runs on all ranks."""

    actor_worker_cls = MifoTrainingWorker
    ref_worker_cls = MifoTrainingWorker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        rollout.register()
        super().__init__(*args, **kwargs)

    @staticmethod
    def _settle() -> None:
        """Wait for copies to the host that verl's offloading leaves under way."""
        get_torch_device().synchronize()

    @property
    def _engine(self) -> MifoEngine:
        return self.actor.engine

    @contextmanager
    def _loss(self, loss_function: Callable) -> Iterator[None]:
        """Run with another loss than RL's."""
        self.actor.set_loss_fn(loss_function)
        try:
            yield
        finally:
            self.actor.set_loss_fn(self.loss_fn)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def configure_mifo(self, node: Mapping[str, Any]) -> None:
        """Hand the settings over, once the model is built."""
        mifo = build_config(node)
        self._sft_loss, self._own_loss = SftLossOfBatch(mifo), OwnLossOfBatch(mifo)
        has_prefixes = "demonstrations" in mifo.prefix.needs
        self.loss_fn: Any = rl_loss(self.loss_fn, mifo.off_policy, mifo.on_policy, has_prefixes)
        self.actor.set_loss_fn(self.loss_fn)
        self._engine.configure(mifo)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_interval(self) -> None:
        """theta_start = theta, if something needs it."""
        self._settle()
        self._engine.interval.begin()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def has_start(self) -> bool:
        """Whether this rank keeps a theta_start."""
        return self._engine.interval.start is not None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def begin_sft(self, interval: int) -> dict[str, Any] | None:
        """The mask of this interval's SFT phase, made by every shard for itself; its report, None without a mask."""
        with self._engine.train_mode():
            report = self._engine.begin_sft(interval)
        return None if report is None else asdict(report)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_sft(self, data: TensorDict) -> TensorDict | None:
        """One SFT update on the actor's weights, with the batch's learning rate."""
        self._engine.set_lr(tu.get(data, SFT_LR))
        with self._loss(self._sft_loss):
            output = self.actor.train_batch(data=data)
        return None if output is None else output.cpu()

    @register(dispatch_mode=TO_EVERY_RANK)
    def stage_sft(self, data: TensorDict) -> None:
        """Keep this rank's part of a batch for the next update that has none yet."""
        self._engine.stage_sft(data, self._own_loss if COMPARED in data.keys() else self._sft_loss)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def take_staged(self) -> list[Taken] | None:
        """What came of the staged batches on this rank, in order; None on a rank that only helps another."""
        taken = self._engine.take_staged()
        return taken if self._engine.is_mp_src_rank_with_outputs() else None

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def probe(self, data: TensorDict) -> TensorDict | None:
        """The sums by row of a probe's batch, in the micro-batches of an update. Nothing changes."""
        return self._measured(data, SumsOfBatch())

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def log_probs(self, data: TensorDict) -> TensorDict | None:
        """The log-probs by row of a batch of own rollouts, in the same micro-batches. Nothing changes."""
        return self._measured(data, LogProbsOfBatch())

    def _measured(self, data: TensorDict, of_batch: Callable) -> TensorDict | None:
        """What a loss function finds in a forward pass."""
        config = self._engine.engine_config
        sizes = {name: getattr(config, name) for name in ("max_token_len_per_gpu", "micro_batch_size_per_gpu")}
        tu.assign_non_tensor(data, compute_loss=True, **sizes)
        with self._loss(of_batch):
            output = self.actor.infer_batch(data=data)
        return None if output is None else tu.get_tensordict({}, {"metrics": tu.get(output, "metrics")})

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def inspect_sft(self) -> dict[str, Any] | None:
        """The mask and both updates of this interval by layer and by kind of matrix, over all ranks."""
        with self._engine.train_mode():
            return self._engine.interval.inspect_sft()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def enter_sft(self) -> None:
        """Go on with an SFT phase whose mask a checkpoint brought."""
        with self._engine.train_mode():
            self._engine.enter_sft()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def leave_sft(self) -> None:
        """Leave an SFT phase as it is, to be saved: the mask stays, the RL phase's optimizer settings are back."""
        with self._engine.train_mode():
            self._engine.leave_sft()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def rl_step_factor(self, num_updates: int) -> float:
        """How far the bias corrections of RL's AdamW run ahead behind this SFT phase."""
        return self._engine.rl_step_factor(num_updates)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def end_sft(self) -> float | None:
        """Everything trainable again; the largest change of a held coordinate on this rank (0.0 in strict mode)."""
        with self._engine.train_mode():
            return self._engine.end_sft()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_interval(self, folder: str) -> None:
        """Write every rank's interval state beside verl's checkpoint."""
        self._settle()
        self._engine.save_interval(Path(folder))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_interval(self, folder: str) -> None:
        """Read every rank's interval state back."""
        with self._engine.train_mode():
            self._engine.load_interval(Path(folder))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def num_weights(self) -> int:
        """The weights of the whole model that multiply."""
        return self._engine.interval.model.num_weights()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def peak_memory_gb(self) -> float:
        """The most memory that this rank has held so far, GiB: on its device, or in its process without one."""
        if get_device_name() == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
        return float(get_torch_device().max_memory_allocated() / 2**30)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def weights_sha256(self) -> str:
        """A digest of this rank's shards of the master weights."""
        self._settle()
        digest = hashlib.sha256()
        for weight in self._engine.interval.model.weights():
            digest.update(weight.cpu().numpy().tobytes())
        return digest.hexdigest()

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_start_log_prob(self, data: TensorDict) -> TensorDict | None:
        """Log-probs under theta_start, the policy at the start of the interval."""
        interval = self._engine.interval
        if interval.start is None:
            raise RuntimeError("no theta_start is kept; begin_interval() comes first")
        with self._engine.eval_mode(), interval.model.swapped(interval.start):
            output = self.actor.infer_batch(data)
        return None if output is None else output.cpu()
