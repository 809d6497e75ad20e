"""A second policy beside the actor's, for parts that need one: base weights of its own, which RL alone trains, and the
actor's adapter on them. Same shards, same process, same ranks, so that all collectives keep one order.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from verl.utils.fsdp_utils import fsdp2_clip_grad_norm_
from verl.workers.config.optimizer import build_optimizer
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from mifo_verl.verl.adapter import AdapterMixin, is_adapter
from mifo_verl.verl.engine_base import CpuModuleMixin
from mifo_verl.verl.shards import ShardedModel, load_optimizer, optimizer_tensors

_WEIGHT, _OPTIMIZER = "second.", "second_optimizer."


class _SecondEngine(CpuModuleMixin, AdapterMixin, FSDPEngineWithLMHead):
    """verl's engine, whose optimizer has the base weights alone."""

    def _build_optimizer(self, module: Any) -> Optimizer:
        base = [parameter for name, parameter in module.named_parameters() if not is_adapter(name)]
        return build_optimizer(base, self.optimizer_config)


class SecondPolicy:
    """The second policy on one rank's shards."""

    def __init__(self, actor: Any, is_offloaded: bool) -> None:
        """A copy of the actor's base weights as they are now; ``is_offloaded``: on the host while it is not used."""
        names = ("model_config", "engine_config", "optimizer_config", "checkpoint_config")
        model, engine, optimizer, checkpoint = (deepcopy(getattr(actor, name)) for name in names)
        vars(engine).update(param_offload=is_offloaded, optimizer_offload=is_offloaded)  # verl's config is frozen
        self.engine: Any = _SecondEngine(model, engine, optimizer, checkpoint)
        self.engine.initialize()
        self.model = ShardedModel(self.engine.module, self.engine.device_mesh)
        self.has_gradient = False
        """Whether a pass of the update that goes on has left the base weights a gradient."""
        self._base = [number for number in range(len(self.model.slices)) if number not in self.model.adapter]
        self._take_(dict(enumerate(actor.interval.model.weights())), self._base)

    @torch.no_grad()
    def _take_(self, weights: Mapping[int, Tensor], numbers: Iterable[int]) -> None:
        """Weights of these parameters, shard to shard."""
        own = self.model.weights()
        for number in numbers:
            own[number].copy_(weights[number])
        self.model.reshard()

    def rl_pass(self, actor: Any, data: TensorDict, loss: Callable) -> tuple[Any, list[Tensor]]:
        """(verl's output, the gradients of the adapter) of one batch; those of the base weights stay here."""
        with self.engine.train_mode(zero_grad_on_exit=False):
            self._take_(dict(enumerate(actor.interval.model.weights())), self.model.adapter)
            self.engine.optimizer_zero_grad()
            output = self.engine.forward_backward_batch(data.copy(), loss)
            adapter = take_gradients(self.engine.module, is_adapter)
        self.has_gradient = True
        return output, adapter

    def step(self, lr: float, max_norm: float, others_finite: bool) -> float:
        """The step of the gradient that is here, by the actor's rate, if it and all others are finite; its norm."""
        self.has_gradient = False
        with self.engine.train_mode():  # which forgets the gradient in the end
            (group,) = self.engine.optimizer.param_groups
            group["lr"] = lr
            norm = clip_(group["params"], max_norm)
            if others_finite and math.isfinite(norm):
                self.engine.optimizer.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: base weights and their optimizer's state. The adapter is the actor's."""
        weights = self.model.weights()
        own = {f"{_WEIGHT}{number}": weights[number] for number in self._base}
        return own | optimizer_tensors(_OPTIMIZER, self.model, self.engine.optimizer)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state. Raises ValueError if it has none of a second policy."""
        if any(f"{_WEIGHT}{number}" not in state for number in self._base):
            raise ValueError(
                "the checkpoint must be of a run with a second policy, and has none; start anew from its exported "
                "model: actor_rollout_ref.model.path=<folder of mifo export>"
            )
        self._take_({number: state[f"{_WEIGHT}{number}"] for number in self._base}, self._base)
        load_optimizer(_OPTIMIZER, self.model, self.engine.optimizer, state)


def clip_(parameters: Iterable[Any], max_norm: float) -> float:
    """The norm of the gradients of all ranks' shards; they are scaled down to ``max_norm`` if it is above."""
    norm = fsdp2_clip_grad_norm_(list(parameters), max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def take_gradients(module: torch.nn.Module, is_taken: Callable[[str], bool]) -> list[Tensor]:
    """This rank's gradients of the parameters with such names, flat; the parameters have none any more."""
    taken = []
    for name, parameter in module.named_parameters():
        if is_taken(name) and parameter.grad is not None:
            grad: Any = parameter.grad
            taken.append((grad.to_local() if isinstance(grad, DTensor) else grad).reshape(-1))
            parameter.grad = None
    return taken
