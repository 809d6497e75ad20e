"""verl's FSDP engine, with an SFT phase on the same shards, optimizer and process as the RL phase."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.fsdp_utils import load_fsdp_optimizer, offload_fsdp_optimizer
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from mifo_verl.config import MifoConfig
from mifo_verl.method.constraint import MaskReport
from mifo_verl.method.mask import step_factor
from mifo_verl.method.policy_shift import token_kl
from mifo_verl.method.token_facts import BEFORE, token_facts
from mifo_verl.types import Phase
from mifo_verl.verl.adapter import AdapterMixin
from mifo_verl.verl.engine_base import CpuModuleMixin, MifoCriticEngine, SaveTogetherMixin
from mifo_verl.verl.head import ChunkedHeadMixin
from mifo_verl.verl.interval import IntervalState
from mifo_verl.verl.joint_update import JointUpdateMixin
from mifo_verl.verl.shards import ShardedModel, load_optimizer, load_shards, optimizer_tensors, save_shards
from mifo_verl.verl.skipped_updates import SkippedUpdatesMixin
from mifo_verl.verl.staging import StagedSftMixin

TOKEN_FACTS = "mifo_token_facts"
"""Non-tensor flag of a batch: the forward pass also returns the facts that the parts need, without gradient."""
POLICY_SHIFT = "mifo_policy_shift"
"""Non-tensor flag of a forward-only batch: every micro-batch also passes under the weights before the interval's SFT
phase, and the exact KL of the policy to that one is taken while both logits are there."""
COMPARED, KL_FROM_BEFORE = "mifo_compared", "kl_from_before"
"""Non-tensor value of a batch of own rollouts: the fact that it takes of the weights before SFT, or an empty word."""

_OPTIMIZER = "optimizer."
"""Begin of the names of the SFT phase's own optimizer in a rank's part of a checkpoint."""


@dataclass
class _RlSettings:
    """What an SFT phase borrows from the RL phase, to be given back."""

    optimizer: Optimizer
    lrs: list[float]
    clip_grad: float


class MifoEngine(
    SkippedUpdatesMixin,
    SaveTogetherMixin,
    CpuModuleMixin,
    JointUpdateMixin,
    StagedSftMixin,
    ChunkedHeadMixin,
    AdapterMixin,
    FSDPEngineWithLMHead,
):
    """The actor's engine: RL updates as in verl, SFT updates under a constraint, theta_start beside the weights."""

    mifo: MifoConfig
    interval: IntervalState
    optimizer: Optimizer
    _before_facts: frozenset[str] = frozenset()
    """What a part takes of the weights before SFT; nothing in an engine that is not trained, such as a reference."""
    _rl: _RlSettings | None = None
    """Set while SFT updates are made."""
    _sft_optimizer: Optimizer | None = None
    """The SFT phase's own, if it is not the RL phase's."""
    _start_logits: Tensor | None = None
    """Logits of the weights compared with, between the two passes of one micro-batch of a probe."""
    _start_output: dict[str, Tensor] = {}  # noqa: RUF012  always replaced, never written to
    """Of the same pass: its log-probs, and its entropy where asked for."""
    _is_before: bool = False
    """Whether the pass that runs is that of the weights compared with."""

    def configure(self, mifo: MifoConfig) -> None:
        """Called once after the model is built."""
        self.mifo, self._before_facts = mifo, mifo.before_facts
        model = ShardedModel(self.module, self.device_mesh)
        self.interval = IntervalState(
            model,
            mifo.constraint.attach(model, mifo.importance),
            keeps_start=mifo.keeps_start,
            keeps_before_sft=mifo.keeps_before_sft,
            inspects=mifo.inspect.mask,
            on_host=mifo.state.device == "host" or self._is_offload_param,
        )
        self.chunk_head()
        self.build_second_policy()

    # ------------------------------------------------------------------ phases

    def begin_sft(self, interval: int) -> MaskReport | None:
        """Let the constraint select, then the SFT phase's optimizer, learning rate and clip norm in. Collective."""
        if self.mifo.sft.optimizer == "fresh":
            self._sft_optimizer = None  # of a checkpoint whose run had a separate one
        report = self.interval.begin_sft(interval, self.optimizer)
        self.enter_sft()
        return report

    def enter_sft(self) -> None:
        """Take the SFT phase's settings up under what is selected, at its begin or after ``leave_sft``."""
        sft = self.mifo.sft
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        self._rl = _RlSettings(self.optimizer, lrs, self.optimizer_config.clip_grad)
        if sft.optimizer != "shared":
            self._sft_optimizer = self._sft_optimizer or self._build_optimizer(self.module)
            self._use(self._sft_optimizer)
        self.set_lr(sft.lr)
        self.optimizer_config.clip_grad = sft.clip_grad
        self.interval.constraint.enter(self.optimizer)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next updates, of every weight."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def leave_sft(self) -> None:
        """Give the RL phase its settings back. What is selected stays."""
        if self._rl is None:
            raise RuntimeError("no SFT phase is running")
        self._use(self._rl.optimizer)
        for group, lr in zip(self.optimizer.param_groups, self._rl.lrs, strict=True):
            group["lr"] = lr
        self.optimizer_config.clip_grad = self._rl.clip_grad
        self._rl = None

    def end_sft(self) -> float | None:
        """Everything is trainable again, under the RL phase's settings. The drift of what this rank has held."""
        drift = self.interval.constraint.release(self.optimizer)
        self.leave_sft()
        if self.mifo.sft.optimizer == "fresh":
            self._sft_optimizer = None
        return drift

    def rl_step_factor(self, num_updates: int) -> float:
        """``step_factor`` of RL's AdamW after this SFT phase of so many updates; 1 if that has had its own."""
        optimizer = self.optimizer if self._rl is None else self._rl.optimizer
        steps = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
        betas = optimizer.param_groups[0].get("betas")
        if self.mifo.sft.optimizer != "shared" or not steps or betas is None:
            return 1.0
        return step_factor(max(steps) - num_updates, num_updates, betas)

    def save_interval(self, folder: Path) -> None:
        """Write this rank's interval state beside verl's checkpoint."""
        state = self.interval.state()
        if self._sft_optimizer is not None:
            state |= optimizer_tensors(_OPTIMIZER, self.interval.model, self._sft_optimizer)
        if self.second is not None:
            state |= self.second.state()
        save_shards(folder, state, self.rank, torch.distributed.get_world_size())

    def load_interval(self, folder: Path) -> None:
        """Read this rank's interval state back."""
        state = load_shards(folder, self.rank, torch.distributed.get_world_size())
        self.interval.load(state)
        if self.second is not None:
            self.second.load(state)
        self._sft_optimizer = None
        if any(name.startswith(_OPTIMIZER) for name in state):
            self._sft_optimizer = self._build_optimizer(self.module)
            load_optimizer(_OPTIMIZER, self.interval.model, self._sft_optimizer, state)

    def _use(self, optimizer: Optimizer) -> None:
        """Make another optimizer the engine's own; if verl offloads optimizers, only this one is on the device."""
        if self._is_offload_optimizer and optimizer is not self.optimizer:
            offload_fsdp_optimizer(self.optimizer)
            load_fsdp_optimizer(optimizer, get_device_id())
        self.optimizer = optimizer

    # ------------------------------------------------------------------ one update

    def optimizer_step(self) -> float:
        """verl's update, between the constraint's two looks at it: before the clip norm and after the step."""
        phase = Phase.RL if self._rl is None else Phase.SFT
        self.interval.constraint.before_update(phase)
        grad_norm = super().optimizer_step()
        self.interval.constraint.after_update(phase, self.optimizer)
        return grad_norm

    # ------------------------------------------------------------------ one forward pass

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """verl's forward pass; first one under the weights before SFT if the two are compared. Collective."""
        if not self._compares(micro_batch):
            return super().forward_step(micro_batch, loss_function, forward_only)
        if self.interval.before_sft is None:
            raise RuntimeError("no weights before SFT are kept; begin_sft() comes first")
        try:
            self._is_before = True
            with torch.no_grad(), self.interval.model.swapped(self.interval.before_sft):
                _, start = super().forward_step(micro_batch, None, forward_only=True)
            self._is_before, self._start_output = False, start["model_output"]
            return super().forward_step(micro_batch, loss_function, forward_only)
        finally:
            self._is_before, self._start_output = False, {}
            self._start_logits = None

    def _compares(self, micro_batch: TensorDict) -> bool:
        """Whether a batch also passes under the weights before SFT: a probe's, or one of a part that needs it."""
        return bool(self._of_before(micro_batch) or tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False))

    def _of_before(self, micro_batch: TensorDict) -> frozenset[str]:
        """What the parts take of the weights before SFT on this batch."""
        own = tu.get_non_tensor_data(micro_batch, COMPARED, default=None)
        if own is not None:
            return frozenset({own} if own else ())
        return frozenset() if self._rl is None else self._before_facts

    def asked_of_head(self, micro_batch: TensorDict) -> tuple[str, ...] | None:
        """What the parts need of an SFT batch, and nothing of the pass before it; logits if two are compared."""
        wants_facts = tu.get_non_tensor_data(micro_batch, TOKEN_FACTS, default=False)
        if not wants_facts or (self._compares(micro_batch) and self._compares_logits(micro_batch)):
            return None
        return () if self._is_before else tuple(self.mifo.token_facts)

    def _compares_logits(self, micro_batch: TensorDict) -> bool:
        """Whether the two passes of a comparison have to keep their logits for each other."""
        is_probe = tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False)
        return bool(is_probe or self._of_before(micro_batch) - {BEFORE})

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Callable | None
    ) -> dict[str, Tensor]:
        """Log-probs; for an SFT batch also the facts that the parts need, for a probe the shift."""
        facts = self._of_logits(output.logits.flatten(0, 1), micro_batch) if self.has_logits else {}
        found = {name: self.by_token(fact_N, output, output_args, micro_batch) for name, fact_N in facts.items()}
        if self._start_output and tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False):
            found |= {f"start_{name}": self._start_output[name] for name in ("log_probs", "entropy")}
        elif self._start_output and BEFORE in self._of_before(micro_batch):
            found[BEFORE] = self._start_output["log_probs"]
        return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func) | found

    def _of_logits(self, logits_NV: Tensor, micro_batch: TensorDict) -> dict[str, Tensor]:
        """What a pass with logits takes of them: facts, and of two passes that are compared the KL."""
        start_NV, wanted = self._start_logits, self._of_before(micro_batch)
        is_probe = tu.get_non_tensor_data(micro_batch, POLICY_SHIFT, default=False)
        facts: dict[str, Tensor] = {}
        if tu.get_non_tensor_data(micro_batch, TOKEN_FACTS, default=False) and (is_probe or not self._is_before):
            facts = token_facts(logits_NV, self.mifo.token_facts)
        if self._is_before:
            self._start_logits = logits_NV if self._compares_logits(micro_batch) else None
        elif start_NV is not None and is_probe:
            facts["kl"] = token_kl(logits_NV, start_NV)
        elif start_NV is not None:
            pairs = {"kl_to_before": (logits_NV, start_NV), KL_FROM_BEFORE: (start_NV, logits_NV)}
            facts |= {name: token_kl(*pairs[name]) for name in wanted - {BEFORE}}
        return facts


def register_engines() -> None:
    """Choose these engines for FSDP2 on CPU and on NVIDIA GPUs; again is harmless."""
    for model_type, engine in (("language_model", MifoEngine), ("value_model", MifoCriticEngine)):
        for device, vendor in (("cpu", None), ("cuda", "nvidia")):
            key = (device, vendor) if vendor else device
            if EngineRegistry._engines[model_type]["fsdp2"].get(key) is not engine:
                EngineRegistry.register(model_type=model_type, backend="fsdp2", device=device, vendor=vendor)(engine)


register_engines()
