"""verl's FSDP engine, with an SFT phase on the same shards, optimizer and process as the RL phase."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer
from transformers import AutoModelForTokenClassification
from verl.utils import model as verl_model
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name
from verl.utils.fsdp_utils import load_fsdp_optimizer, offload_fsdp_optimizer
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from mifo_verl.config import MifoConfig, SftConfig
from mifo_verl.method.constraint import GradientMask
from mifo_verl.method.policy_shift import token_kl
from mifo_verl.method.sparsify import drop_gradients_
from mifo_verl.method.token_entropy import token_entropy
from mifo_verl.run.faults import reach
from mifo_verl.verl.checkpoint import load_shards, save_shards
from mifo_verl.verl.interval import IntervalState, MaskReport
from mifo_verl.verl.shards import ShardedModel
from mifo_verl.verl.skipped_updates import SkippedUpdatesMixin
from mifo_verl.verl.staging import StagedSftMixin

SELECTION_ENTROPY = "mifo_selection_entropy"
"""Non-tensor flag of a batch: the forward pass also returns the float32 entropy, without gradient."""
POLICY_SHIFT = "mifo_policy_shift"
"""Non-tensor flag of a forward-only batch: every micro-batch also passes under theta_start, and the exact KL of the
policy to that one is taken while both logits are there."""


@dataclass
class _RlSettings:
    """What an SFT phase borrows from the RL phase, to be given back."""

    optimizer: Optimizer
    lrs: list[float]
    clip_grad: float


class CpuModuleMixin:
    """A forward-only engine asks for pinned memory, which needs an accelerator; a CPU has nothing to offload."""

    def _build_fsdp_module(self, module: Any) -> Any:
        config = self.engine_config  # type: ignore[attr-defined]
        if get_device_name() != "cpu" or not config.forward_only:
            return super()._build_fsdp_module(module)  # type: ignore[misc]
        vars(config)["forward_only"] = False  # verl's config is frozen; it is put back below
        try:
            return super()._build_fsdp_module(module)  # type: ignore[misc]
        finally:
            vars(config)["forward_only"] = True


class SaveTogetherMixin:
    """Where the disk refuses one rank's checkpoint, every rank raises, and none waits for another for ever."""

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """verl's save. Raises OSError on all ranks where a file of one could not be written."""
        manager = self.checkpoint_manager  # type: ignore[attr-defined]
        whole, failures = manager.save_checkpoint, []

        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                whole(*args, **kwargs)
            except (OSError, RuntimeError) as error:
                failures.append(f"rank {torch.distributed.get_rank()}: {error}")
                torch.distributed.barrier()  # the one behind the writes, where the other ranks are

        manager.save_checkpoint = guarded
        try:
            super().save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        finally:
            del manager.save_checkpoint
        everywhere: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, failures)
        if any(everywhere):
            raise OSError("; ".join(failure for rank in everywhere for failure in rank))


class MifoEngine(SkippedUpdatesMixin, SaveTogetherMixin, CpuModuleMixin, StagedSftMixin, FSDPEngineWithLMHead):
    """The actor's engine: RL updates as in verl, SFT updates under a mask, theta_start beside the weights."""

    mifo: MifoConfig
    interval: IntervalState
    optimizer: Optimizer
    _rl: _RlSettings | None = None
    _separate: Optimizer | None = None
    _start_logits: Tensor | None = None
    """Logits under theta_start between the two passes of one micro-batch of a probe."""
    _start_output: dict[str, Tensor]

    def configure(self, mifo: MifoConfig) -> None:
        """Called once after the model is built."""
        self.mifo = mifo
        self.interval = IntervalState(ShardedModel(self.module, self.device_mesh))
        self.interval.inspects = mifo.inspect.mask

    # ------------------------------------------------------------------ phases

    def begin_interval(self) -> None:
        """Remember theta_start where something needs it; elsewhere forget the one of an earlier interval."""
        if self.mifo.keeps_start:
            self.interval.begin()
        else:
            self.interval.start = None

    def begin_sft(self, interval: int) -> MaskReport | None:
        """Select the mask, then let the SFT phase's optimizer, learning rate and clip norm in. Collective."""
        report = None
        if isinstance(self.mifo.constraint, GradientMask):
            report = self.interval.select(self.mifo.constraint, self.mifo.importance, interval)
        elif self.mifo.inspect.mask and self.interval.start is not None:
            self.interval.inspect_rl()
        if self.mifo.probe.shifts:
            self.interval.begin()  # the mask does not need theta_start any more
        self.enter_sft()
        return report

    def enter_sft(self) -> None:
        """Take the SFT phase's settings up under the mask that is selected, at its begin or after ``leave_sft``."""
        self._lend_optimizer(self.mifo.sft)
        if isinstance(self.mifo.constraint, GradientMask):
            self.interval.hold(self.mifo.constraint, self.optimizer)

    def leave_sft(self) -> None:
        """Give the RL phase its settings back. The mask stays selected."""
        if self._rl is None:
            raise RuntimeError("no SFT phase is running")
        self._use(self._rl.optimizer)
        for group, lr in zip(self.optimizer.param_groups, self._rl.lrs, strict=True):
            group["lr"] = lr
        self.optimizer_config.clip_grad = self._rl.clip_grad
        self._rl = None

    def end_sft(self) -> float | None:
        """Release the mask and give the RL phase its settings back. Returns the drift of this rank's held values."""
        reach("mask_release")
        drift = self.interval.release(self.optimizer)
        self.leave_sft()
        if self.mifo.sft.optimizer == "fresh":
            self._separate = None
        return drift

    def save_interval(self, folder: Path) -> None:
        """Write this rank's interval state beside verl's checkpoint."""
        save_shards(folder, self.interval, self._separate, self.rank, torch.distributed.get_world_size())
        reach("checkpoint_file")

    def load_interval(self, folder: Path) -> None:
        """Read this rank's interval state back."""
        separate = None if self.mifo.sft.optimizer == "shared" else self._build_optimizer(self.module)
        load_shards(folder, self.interval, separate, self.rank, torch.distributed.get_world_size())
        self._separate = separate if separate is not None and separate.state else None
        if not self.mifo.keeps_start:
            self.interval.start = None

    def _lend_optimizer(self, sft: SftConfig) -> None:
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        self._rl = _RlSettings(self.optimizer, lrs, self.optimizer_config.clip_grad)
        if sft.optimizer != "shared":
            self._separate = self._separate or self._build_optimizer(self.module)
            self._use(self._separate)
        for group in self.optimizer.param_groups:
            group["lr"] = sft.lr
        self.optimizer_config.clip_grad = sft.clip_grad

    def _use(self, optimizer: Optimizer) -> None:
        """Make another optimizer the engine's own; where verl offloads optimizers, only this one is on the device."""
        if self._is_offload_optimizer and optimizer is not self.optimizer:
            offload_fsdp_optimizer(self.optimizer)
            load_fsdp_optimizer(optimizer, get_device_id())
        self.optimizer = optimizer

    # ------------------------------------------------------------------ one update

    def optimizer_step(self) -> float:
        """verl's update; in an SFT phase the mask comes before the clip norm and after the update."""
        self._sparsify_()
        if self._rl is None:
            reach("rl_update")
            return super().optimizer_step()
        self.interval.before_update()
        grad_norm = super().optimizer_step()
        self.interval.after_update(self.optimizer)
        return grad_norm

    def _sparsify_(self) -> None:
        sparsify, interval = self.mifo.sparsify, self.interval
        if sparsify.drops("rl" if self._rl is None else "sft"):
            interval.updates += 1
            slices, gradients = interval.model.slices, interval.model.gradients()
            drop_gradients_(gradients, slices, sparsify.rate, sparsify.seed, interval.updates)

    # ------------------------------------------------------------------ one forward pass

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """verl's forward pass; for a batch with ``POLICY_SHIFT`` first one under theta_start. Collective."""
        if not tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False):
            return super().forward_step(micro_batch, loss_function, forward_only)
        if self.interval.start is None:
            raise RuntimeError("no theta_start is kept; begin_interval() comes first")
        try:
            with self.interval.model.swapped(self.interval.start):
                _, start = super().forward_step(micro_batch, None, forward_only)
            self._start_output = start["model_output"]
            return super().forward_step(micro_batch, loss_function, forward_only)
        finally:
            self._start_logits = None
            self._start_output = {}

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Callable | None
    ) -> dict[str, Tensor]:
        """verl's log-probs; for an SFT batch also the entropy that tokens are selected by, for a probe the shift."""
        found = self._of_logits(output, output_args, micro_batch)
        return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func) | found

    def _of_logits(self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if tu.get_non_tensor_data(micro_batch, SELECTION_ENTROPY, default=False):
            found["entropy"] = self._by_token(
                token_entropy(output.logits.flatten(0, 1)), output, output_args, micro_batch
            )
        if tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False):
            found |= self._shift(output, output_args, micro_batch)
        return found

    def _shift(self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict) -> dict[str, Tensor]:
        """Nothing under theta_start, whose logits are kept for one pass; then the KL, and what that pass gave."""
        logits_NV = output.logits.flatten(0, 1)
        if self._start_logits is None:
            self._start_logits = logits_NV
            return {}
        kl = self._by_token(token_kl(logits_NV, self._start_logits), output, output_args, micro_batch)
        return {"kl": kl} | {f"start_{name}": self._start_output[name] for name in ("log_probs", "entropy")}

    def _by_token(self, values_N: Tensor, output: Any, output_args: dict[str, Any], micro_batch: TensorDict) -> Tensor:
        """Nested (sequences, tokens) of what was taken from padded (B, T, V) or packed (1, tokens, V) logits."""
        offsets = micro_batch["input_ids"].offsets()
        if tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True):
            values_N = self._gather_and_unpad_packed(values_N, output_args["pad_size"])
        else:
            shape = output.logits.shape[:2]
            real = torch.arange(shape[1], device=values_N.device) < offsets.diff()[:, None]
            values_N = values_N.view(shape)[real]
        return torch.nested.nested_tensor_from_jagged(values_N, offsets)


class MifoCriticEngine(SkippedUpdatesMixin, SaveTogetherMixin, CpuModuleMixin, FSDPEngineWithValueHead):
    """The critic's engine; on a CPU without the flash attention that verl asks for by name."""

    def _build_module(self) -> Any:
        if get_device_name() != "cpu":
            return super()._build_module()
        asked = verl_model.load_valuehead_model
        verl_model.load_valuehead_model = _value_model_with_sdpa
        try:
            return super()._build_module()
        finally:
            verl_model.load_valuehead_model = asked


def _value_model_with_sdpa(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
    return AutoModelForTokenClassification.from_pretrained(
        local_path,
        dtype=torch_dtype,
        config=model_config,
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
    )


def register_engines() -> None:
    """Choose these engines for FSDP2 on CPU and on NVIDIA GPUs; again is harmless."""
    for model_type, engine in (("language_model", MifoEngine), ("value_model", MifoCriticEngine)):
        for device, vendor in (("cpu", None), ("cuda", "nvidia")):
            key = (device, vendor) if vendor else device
            if EngineRegistry._engines[model_type]["fsdp2"].get(key) is not engine:
                EngineRegistry.register(model_type=model_type, backend="fsdp2", device=device, vendor=vendor)(engine)


register_engines()
