"""SFT in a LoRA adapter alone: base weights, which RL trains, stand still in the SFT phase, and take it in at its end.

RL trains the base weights W and leaves the adapter, SFT trains the adapter A, B and leaves W; at the end of the phase
W <- W + (alpha / r) B A in float32 and B <- 0. So an SFT phase changes a matrix by rank r at most. B is 0 in RL, which
is that of the model without an adapter, to the bit; A goes on from phase to phase. What stands still gets no gradient,
so that AdamW touches neither it nor its moments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.method.constraint import CONSTRAINTS, ActiveConstraint, Constraint, MaskReport, Model, Observer
from mifo_verl.method.importance import Importance
from mifo_verl.types import Phase, Problem, RunFacts


@CONSTRAINTS.register("lora")
@dataclass(frozen=True)
class Lora(Constraint):
    """SFT trains the adapter alone, which is folded into the base weights at the phase's end."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"trainable_base"})

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        model, name = "actor_rollout_ref.model", self.setting("name")
        if not facts.lora_rank:
            cure = f"set {model}.lora_rank=16 {model}.lora_alpha=16 {model}.lora.merge=true"
            yield Problem(f"{model}.lora_rank", 0, "above 0, because mifo/constraint=lora trains an adapter", cure)
        if facts.has_sft_phases and facts.sft_optimizer != "fresh":
            rule = "fresh with mifo/constraint=lora: each phase begins an adapter, and older moments are of another one"
            yield Problem("mifo.sft.optimizer", facts.sft_optimizer, rule, "use mifo.sft.optimizer=fresh")
        if facts.weights_dtype not in ("fp32", "float32"):
            setting = "actor_rollout_ref.actor.fsdp_config.model_dtype"
            rule = "fp32, because the adapter is folded into these weights, and bf16 would round it away"
            yield Problem(setting, facts.weights_dtype, rule, f"use {setting}=fp32")
        if not facts.has_sft_phases:
            cure = "choose mifo/schedule=when_full, or mifo/constraint=none"
            yield Problem(name, self.name, "in a run with SFT phases, which are all that it changes", cure)

    def attach(self, model: Model, importance: Importance) -> ActiveConstraint:
        return ActiveLora(model)

    def describe(self) -> str:
        return "SFT trains a LoRA adapter alone, folded into the weights after each phase"


class ActiveLora(ActiveConstraint):
    """RL without the adapter's gradient, SFT without the base's."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def select(
        self,
        start: Sequence[Tensor] | None,
        interval: int,
        observe: Observer | None,
        optimizer: Optimizer | None = None,
    ) -> MaskReport:
        """Nothing is chosen: every base weight is held. Collective."""
        sizes = torch.tensor([weight.numel() for weight in self._model.weights()])
        counts = torch.stack([sizes.sum() - sizes[self._model.adapter].sum(), sizes.sum()])
        held, of_all = self._model.shards.sum(counts.to(self._model.weights()[0].device)).tolist()
        return MaskReport(held / of_all, 0.0, None, held, of_all)

    def before_update(self, phase: Phase) -> None:
        self._model.forget_gradients(of_adapter=phase is Phase.RL)

    def release(self, optimizer: Optimizer) -> None:
        self._model.fold_adapter()
