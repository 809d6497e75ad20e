"""What verl's FSDP engines need of ours, actor and critic alike: a CPU, saves that fail together, updates skipped."""

from typing import Any

import torch
from transformers import AutoModelForTokenClassification
from verl.utils import model as verl_model
from verl.utils.device import get_device_name
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead

from mifo_verl.verl.skipped_updates import SkippedUpdatesMixin


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
