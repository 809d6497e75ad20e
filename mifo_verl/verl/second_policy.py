"""A second policy beside the actor's, for parts that need one: base weights of its own, which RL alone trains, and the
actor's adapter on them. Same shards, same process, same ranks, so that all collectives keep one order.

An update takes all gradients first and moves all weights then, or none: where one gradient is not finite, the update is
skipped as a whole, and both policies stay where they are.
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
from verl.utils import tensordict_utils as tu
from verl.utils.fsdp_utils import fsdp2_clip_grad_norm_
from verl.workers.config.optimizer import build_optimizer
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.padding import response_from_nested

from mifo_verl.config import MifoConfig
from mifo_verl.verl.adapter import AdapterMixin, is_adapter
from mifo_verl.verl.engine_base import CpuModuleMixin
from mifo_verl.verl.shards import ShardedModel, load_optimizer, optimizer_tensors
from mifo_verl.verl.staging import RL_WEIGHT

GAIN, CLIP_SHARE = "mifo_cooperative_gain", "mifo_second_clip_share"
ADAPTER_NORM, SECOND_NORM = "mifo_adapter_grad_norm", "mifo_second_grad_norm"
"""Metrics of an update: J_RL of the policy minus that of the second one, the share of the tokens whose ratio to the
second policy is clipped, and gradient norms before clipping; verl's own ``grad_norm`` is the base weights'."""
_WEIGHT, _OPTIMIZER = "second.", "second_optimizer."


class SecondPolicy:
    """The second policy on one rank's shards: an engine of its own, whose optimizer has the base weights alone."""

    def __init__(self, actor: "SecondPolicyMixin", is_offloaded: bool) -> None:
        """A copy of the actor's base weights as they are now; ``is_offloaded``: on the host while it is not used."""
        names = ("model_config", "engine_config", "optimizer_config", "checkpoint_config")
        model, engine, optimizer, checkpoint = (deepcopy(getattr(actor, name)) for name in names)
        vars(engine).update(param_offload=is_offloaded, optimizer_offload=is_offloaded)  # verl's config is frozen
        self.engine: Any = _SecondEngine(model, engine, optimizer, checkpoint)
        self.engine.initialize()
        self.model = ShardedModel(self.engine.module, self.engine.device_mesh)
        self.has_gradient = False
        """Whether a pass of the update that goes on has left the base weights a gradient."""
        self._of_adapter = [is_adapter(where.name) for where in self.model.slices]
        self._copy_(actor, of_adapter=False)

    @torch.no_grad()
    def _copy_(self, actor: "SecondPolicyMixin", of_adapter: bool) -> None:
        """Take the actor's adapter over, or its base weights, shard to shard."""
        pairs = zip(self.model.weights(), actor.interval.model.weights(), self._of_adapter, strict=True)
        for mine_N, theirs_N, is_of_adapter in pairs:
            if is_of_adapter is of_adapter:
                mine_N.copy_(theirs_N)
        self.model.reshard()

    def rl_pass(self, actor: "SecondPolicyMixin", data: TensorDict, loss: Callable) -> tuple[Any, list[Tensor]]:
        """(verl's output, the gradients of the adapter) of one batch; those of the base weights stay here."""
        with self.engine.train_mode(zero_grad_on_exit=False):
            self._copy_(actor, of_adapter=True)
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
        pairs = enumerate(zip(self.model.weights(), self._of_adapter, strict=True))
        weights = {f"{_WEIGHT}{number}": weight_N for number, (weight_N, of_adapter) in pairs if not of_adapter}
        return weights | optimizer_tensors(_OPTIMIZER, self.model, self.engine.optimizer)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state. Raises ValueError if it has none of a second policy."""
        for number, (weight_N, of_adapter) in enumerate(zip(self.model.weights(), self._of_adapter, strict=True)):
            if not of_adapter and f"{_WEIGHT}{number}" not in state:
                raise ValueError(
                    "the checkpoint must be of a run with a second policy, and has none; start anew from its exported "
                    "model: actor_rollout_ref.model.path=<folder of mifo export>"
                )
            if not of_adapter:
                weight_N.copy_(state[f"{_WEIGHT}{number}"])
        self.model.reshard()
        load_optimizer(_OPTIMIZER, self.model, self.engine.optimizer, state)


class _SecondEngine(CpuModuleMixin, AdapterMixin, FSDPEngineWithLMHead):
    def _build_optimizer(self, module: Any) -> Optimizer:
        base = [parameter for name, parameter in module.named_parameters() if not is_adapter(name)]
        return build_optimizer(base, self.optimizer_config)


class SecondPolicyMixin:
    """An engine whose updates are what ``mifo/mixing`` asks of base weights, their adapter and a second policy."""

    mifo: MifoConfig
    interval: Any
    module: Any
    optimizer: Optimizer
    second: SecondPolicy | None = None
    one_pass: Callable
    _measured: dict[str, float]
    """Of the update that goes on."""
    _norms_ahead: list[float]
    """Of the steps ahead in the update that goes on."""

    def build_second_policy(self) -> None:
        """The second policy, if a part needs one: base weights as the actor's are now. Collective."""
        if any("second_policy" in part.needs for part in self.mifo.parts):
            self.second = SecondPolicy(self, self.mifo.mixing.offload)

    def train_batch(self, data: TensorDict, loss_function: Callable) -> Any:
        """verl's update, with what was measured of the second policy among its metrics."""
        self._measured, self._norms_ahead = {}, []
        outputs = super().train_batch(data, loss_function)  # type: ignore[misc]
        outputs["metrics"] |= {name: [value] for name, value in self._measured.items()}
        return outputs

    def forward_backward_batch(self, data: TensorDict, loss_function: Callable, forward_only: bool = False) -> Any:
        """verl's passes; in an update of base and adapter, those that the mixing asks for."""
        passes = super().forward_backward_batch  # type: ignore[misc]
        if forward_only or not self.trains_base:  # type: ignore[attr-defined]
            return passes(data, loss_function, forward_only)
        update = _Update(self, data, loss_function, passes)
        self.mifo.mixing.gradients(update, tu.get_non_tensor_data(data, RL_WEIGHT, default=1.0))
        self._measured |= update.measured
        return update.output

    def optimizer_step(self) -> float:
        """verl's step; base, adapter and second policy are clipped each by its own norm, and move together or not."""
        if not self.trains_base:  # type: ignore[attr-defined]
            return super().optimizer_step()  # type: ignore[misc, no-any-return]
        max_norm = self.optimizer_config.clip_grad  # type: ignore[attr-defined]
        base, adapter = self.optimizer.param_groups
        norms = [clip_(group["params"], max_norm) for group in (base, adapter)]
        self._measured[ADAPTER_NORM] = norms[1]
        norms += self._norms_ahead
        if self.second is not None and self.second.has_gradient:
            norms.append(self.second.step(base["lr"], max_norm, all(map(math.isfinite, norms))))
            self._measured[SECOND_NORM] = norms[-1]
        infinite = [norm for norm in norms if not math.isfinite(norm)]
        if infinite:
            self.optimizer.zero_grad()
            return infinite[0]
        self.optimizer.step()
        return norms[0]

    @torch.no_grad()
    def one_step_ahead_(self) -> Callable[[], None]:
        """Move the base weights by a step of their gradients alone; what puts them and their moments back."""
        base, _ = self.optimizer.param_groups
        take_gradients(self.module, is_adapter)
        weights = [weight.clone() for weight in self.interval.model.weights()]
        states = {
            parameter: {name: value.clone() for name, value in self.optimizer.state.get(parameter, {}).items()}
            for parameter in base["params"]
        }
        norm = clip_(base["params"], self.optimizer_config.clip_grad)  # type: ignore[attr-defined]
        self._norms_ahead.append(norm)
        if math.isfinite(norm):
            self.optimizer.step()

        def put_back() -> None:
            self.interval.model.write(weights)
            for parameter, state in states.items():
                self.optimizer.state[parameter] = state
                if not state:
                    del self.optimizer.state[parameter]
            self.optimizer.zero_grad()

        return put_back


class _Update:
    """One update as a mixing asks for it (``mifo_verl.method.mixing.Update``)."""

    def __init__(self, engine: SecondPolicyMixin, data: TensorDict, loss_function: Callable, passes: Callable) -> None:
        self.output: Any = None
        self.measured: dict[str, float] = {}
        self._engine = engine
        self._data = data
        self._loss = loss_function
        self._passes = passes
        self._second_loss: float | None = None

    def both_losses(self) -> None:
        self.output = self._passes(self._data, self._loss)
        if self._second_loss is not None:
            self.measured[GAIN] = self._second_loss - float(sum(self.output["loss"]))

    def adapter_gradients(self) -> list[Tensor]:
        named = zip(self._engine.interval.model.slices, self._engine.interval.model.gradients(), strict=True)
        return [gradient for where, gradient in named if is_adapter(where.name)]

    def rl_at_second_policy(self, is_own_anchor: bool) -> list[Tensor]:
        assert self._engine.second is not None
        output, adapter = self._engine.second.rl_pass(self._engine, self._data, self._anchored(is_own_anchor))
        self._measure(output)
        return adapter

    def rl_one_step_ahead(self, is_own_anchor: bool) -> list[Tensor]:
        self._engine.one_pass(self._data, self._loss, weight=1.0)
        put_back = self._engine.one_step_ahead_()
        try:
            self._measure(self._engine.one_pass(self._data, self._anchored(is_own_anchor), weight=1.0))
            return take_gradients(self._engine.module, is_adapter)
        finally:
            put_back()

    def _anchored(self, is_own: bool) -> Callable:
        return _OwnAnchor(self._loss) if is_own else self._loss

    def _measure(self, output: Any) -> None:
        self._second_loss = float(sum(output["loss"]))
        if (clipped := output["metrics"].get("actor/pg_clipfrac")) is not None:
            self.measured[CLIP_SHARE] = float(clipped.aggregate())


class _OwnAnchor:
    """An RL loss whose old log-probs are those of the pass itself: the ratio is 1, and its gradient log-prob's."""

    def __init__(self, loss_function: Callable) -> None:
        self._loss = loss_function

    def __call__(self, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None) -> Any:
        data = data.copy()
        data["old_log_probs"] = response_from_nested(model_output["log_probs"].detach(), data["response_mask"])
        return self._loss(model_output=model_output, data=data, dp_group=dp_group)


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
