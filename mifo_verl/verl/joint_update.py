"""One update of base weights, their adapter and a second policy, as ``mifo_verl.method.mixing`` asks for it.

It takes all gradients first and moves all weights then, or none: if one gradient is not finite, everything stays.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tensordict import TensorDict
from torch import Tensor
from torch.optim import Optimizer
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from mifo_verl.config import MifoConfig
from mifo_verl.verl.adapter import is_adapter
from mifo_verl.verl.second_policy import SecondPolicy, clip_, take_gradients
from mifo_verl.verl.staging import RL_WEIGHT

GAIN, CLIP_SHARE = "mifo_cooperative_gain", "mifo_second_clip_share"
ADAPTER_NORM, SECOND_NORM = "mifo_adapter_grad_norm", "mifo_second_grad_norm"
"""Metrics of an update: J_RL of the policy minus that of the second one, the share of the tokens whose ratio to the
second policy is clipped, and gradient norms before clipping; verl's own ``grad_norm`` is the base weights'."""


class JointUpdateMixin:
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
        """verl's step; base, adapter and second policy are clipped each by its own norm, and move together or not.

        Returns the norm of the base weights' gradient, or the adapter's where it trains alone.
        """
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
        return norms[0] or norms[1]

    @contextmanager
    def one_step_ahead(self) -> Iterator[None]:
        """The base weights as a step of their gradients alone leaves them; then they and their moments are back."""
        base, _ = self.optimizer.param_groups
        take_gradients(self.module, is_adapter)
        weights = [weight.clone() for weight in self.interval.model.weights()]
        states = {p: {name: x.clone() for name, x in self.optimizer.state.get(p, {}).items()} for p in base["params"]}
        norm = clip_(base["params"], self.optimizer_config.clip_grad)  # type: ignore[attr-defined]
        self._norms_ahead.append(norm)
        if math.isfinite(norm):
            self.optimizer.step()
        try:
            yield
        finally:
            self.interval.model.write(weights)
            for parameter, state in states.items():
                self.optimizer.state[parameter] = state
                if not state:  # it has made no step yet
                    del self.optimizer.state[parameter]
            self.optimizer.zero_grad()


class _Update:
    """One update as a mixing asks for it (``mifo_verl.method.mixing.Update``)."""

    def __init__(self, engine: JointUpdateMixin, data: TensorDict, loss_function: Callable, passes: Callable) -> None:
        self.output: Any = None
        self.measured: dict[str, float] = {}
        self._engine, self._data, self._loss, self._passes = engine, data, loss_function, passes
        self._second_loss: float | None = None

    def both_losses(self) -> None:
        self.output = self._passes(self._data, self._loss)
        if self._second_loss is not None:
            self.measured[GAIN] = self._second_loss - float(sum(self.output["loss"]))

    def adapter_gradients(self) -> list[Tensor]:
        model = self._engine.interval.model
        gradients = model.gradients()
        return [gradients[number] for number in model.adapter]

    def rl_at_second_policy(self, is_own_anchor: bool) -> list[Tensor]:
        assert self._engine.second is not None
        output, adapter = self._engine.second.rl_pass(self._engine, self._data, self._anchored(is_own_anchor))
        self._measure(output)
        return adapter

    def rl_one_step_ahead(self, is_own_anchor: bool) -> list[Tensor]:
        self._engine.one_pass(self._data, self._loss, weight=1.0)
        with self._engine.one_step_ahead():
            self._measure(self._engine.one_pass(self._data, self._anchored(is_own_anchor), weight=1.0))
            return take_gradients(self._engine.module, is_adapter)

    def _anchored(self, is_own: bool) -> Callable:
        return own_anchor(self._loss) if is_own else self._loss

    def _measure(self, output: Any) -> None:
        self._second_loss = float(sum(output["loss"]))
        if (clipped := output["metrics"].get("actor/pg_clipfrac")) is not None:
            self.measured[CLIP_SHARE] = float(clipped.aggregate())


def own_anchor(loss_function: Callable) -> Callable:
    """An RL loss whose old log-probs are those of the pass itself: the ratio is 1, and its gradient log-prob's."""

    def loss(model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None) -> Any:
        data = data.copy()
        data["old_log_probs"] = response_from_nested(model_output["log_probs"].detach(), data["response_mask"])
        return loss_function(model_output=model_output, data=data, dp_group=dp_group)

    return loss
