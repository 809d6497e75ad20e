"""A LoRA adapter on FSDP2 shards: base weights that train beside it, and both folded into one set of weights.

verl freezes the base and merges the adapter into the module before a weight sync, in bfloat16, and back behind it. Here
weights are folded one by one, in float32, and the module is not touched. Names of peft: ``q_proj.base_layer.weight``,
``q_proj.lora_A.default.weight`` (r, in) and ``q_proj.lora_B.default.weight`` (out, r).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_id
from verl.utils.fsdp_utils import offload_fsdp_model_to_cpu
from verl.utils.model import convert_weight_keys
from verl.workers.config.optimizer import build_optimizer

from mifo_verl.config import MifoConfig

TRAINS_BASE, ADAPTER_LR = "mifo_trains_base", "mifo_adapter_lr"
"""Keys of ``model.lora``, by which the engine knows before it is built what the parts need."""
_LORA_A, _LORA_B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is the adapter's."""
    return "lora_" in name


def prepare_model(model: DictConfig, mifo: MifoConfig) -> None:
    """Before the engines are built: tell them by the config of their model what the parts need."""
    if mifo.trains_base:
        with open_dict(model):
            model.lora = OmegaConf.merge(model.lora, {TRAINS_BASE: True, ADAPTER_LR: mifo.mixing.adapter_lr})


def fold(base: Tensor, lora_a: Tensor, lora_b: Tensor, scaling: float) -> Tensor:
    """W + scaling * B A in float32, whatever the dtypes of the three are."""
    return base.float() + (lora_b.float() @ lora_a.float()) * scaling


def folded(weights: Mapping[str, Any], scaling: float) -> Iterator[tuple[str, Tensor]]:
    """(name without the adapter, weight with the adapter in it) of every weight of a module of peft, one at a time.

    A weight that has no adapter comes as it is. DTensors are gathered: every rank has to read to the end.
    """
    for name, weight in weights.items():
        if is_adapter(name):
            continue
        stem, _, kind = name.partition(_BASE)
        if kind == "weight" and f"{stem}{_LORA_A}" in weights:
            lora_a, lora_b = (_whole(weights[f"{stem}{part}"]) for part in (_LORA_A, _LORA_B))
            weight = fold(_whole(weight), lora_a, lora_b, scaling)
        yield name.removeprefix("base_model.model.").replace(_BASE, "."), _whole(weight)


@torch.no_grad()
def fold_(module: nn.Module) -> None:
    """Take the adapter of a module of peft into its weights, shard by shard: W <- W + scaling B A, then B <- 0.

    W and B are cut by the same rows, and A is gathered. Collective.
    """
    named, scaling = dict(module.named_parameters()), scaling_of(module)
    for name, lora_b in named.items():
        if name.endswith(_LORA_B):
            stem = name.removesuffix(_LORA_B)
            lora_a = _whole(named[f"{stem}{_LORA_A}"])
            base, rows = (_local(held) for held in (named[f"{stem}{_BASE}weight"], lora_b))
            base.copy_(fold(base, lora_a.to(base.device), rows, scaling))
            rows.zero_()


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _whole(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    on_device: Any = tensor.detach().to(get_device_id(), non_blocking=True)
    return on_device.full_tensor()  # type: ignore[no-any-return]


def scaling_of(module: nn.Module) -> float:
    """alpha / r. Raises ValueError if an adapter is of a kind that is not folded: other than plain LoRA on a linear."""
    layers = [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
    scalings = {layer.scaling["default"] for layer in layers}
    plain = all(type(layer) is Linear and not layer.use_dora.get("default") for layer in layers)
    if not plain or len(scalings) != 1:
        raise ValueError(
            "actor_rollout_ref.model.lora_adapter_path must be an adapter of plain LoRA on linear layers, of one rank "
            "and alpha, because only such is folded into the weights; make another one"
        )
    return float(scalings.pop())


class AdapterMixin:
    """An engine of verl that folds its adapter for a weight sync, and whose base weights train beside it if asked.

    The optimizer has two groups then, base and adapter, each clipped by its own norm: otherwise a large gradient of the
    adapter would shorten the step of the base.
    """

    module: Any
    optimizer: torch.optim.Optimizer

    @property
    def trains_base(self) -> bool:
        """Whether there is an adapter, and base weights that train beside it."""
        return self._is_lora and bool(self.model_config.lora.get(TRAINS_BASE))  # type: ignore[attr-defined]

    def _build_lora_module(self, module: Any) -> Any:
        module = super()._build_lora_module(module)  # type: ignore[misc]
        scaling_of(module)
        return module.requires_grad_(True) if self.trains_base else module

    def _build_optimizer(self, module: Any) -> torch.optim.Optimizer:
        config = self.optimizer_config  # type: ignore[attr-defined]
        if not self.trains_base:
            return super()._build_optimizer(module)  # type: ignore[misc]
        lr = self.model_config.lora.get(ADAPTER_LR)  # type: ignore[attr-defined]
        base, adapter = (
            [parameter for name, parameter in module.named_parameters() if is_adapter(name) is of_adapter]
            for of_adapter in (False, True)
        )
        groups = [{"params": base}, {"params": adapter, "lr": config.lr if lr is None else lr}]
        return build_optimizer(groups, config)

    def _merged_lora_per_tensor_param(self) -> Iterator[tuple[str, Tensor]]:
        """verl's weight sync with the adapter in the weights; verl's own goes through bfloat16, this is float32."""
        try:
            for name, weight in folded(self.module.state_dict(), scaling_of(self.module)):
                yield from convert_weight_keys({name: weight}, self.module).items()
        finally:
            if self._is_offload_param:  # type: ignore[attr-defined]
                offload_fsdp_model_to_cpu(self.module)
