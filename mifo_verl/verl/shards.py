"""A model as FSDP2 shards it: flat local views of parameters, gradients and optimizer state, in one fixed order.

Over the ranks of the shard group, in rank order, the flat views of a parameter are the flattened parameter: DTensors
are split by rows. Replicas (HSDP) hold the same coordinates, so only the shard group counts. FSDP1 is refused: its root
module keeps gathered copies of weights that are swapped, and its parameters have the size of a rank's slice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer

from mifo_verl.method.coordinates import ShardRange
from mifo_verl.probes.parameters import kind_of
from mifo_verl.run.compute import multiplying_weights
from mifo_verl.verl.adapter import fold_, is_adapter


class ProcessShards:
    """The ranks that together hold every coordinate once, for ``select_top_share``."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self._group = mesh.get_group(mesh.ndim - 1)  # of ("fsdp",) or ("ddp", "fsdp")
        self.rank = dist.get_rank(self._group)

    def sum(self, counts: Tensor) -> Tensor:
        """The elementwise sum over the shards."""
        counts = counts.clone()
        dist.all_reduce(counts, group=self._group)
        return counts

    def gather(self, counts: Tensor) -> Tensor:
        """The vectors of all shards as rows, in rank order."""
        rows = [torch.empty_like(counts) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(rows, counts.contiguous(), group=self._group)
        return torch.stack(rows)


def _flat(tensor: Tensor) -> Tensor:
    """The local shard as a flat view: writing to it writes to the shard."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()).view(-1)


class ShardedModel:
    """The trainable parameters of an FSDP module, each with the range of coordinates that this rank holds."""

    def __init__(self, module: nn.Module, mesh: DeviceMesh) -> None:
        self.module = module
        self.shards = ProcessShards(mesh)
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.parameters: list[Tensor] = [parameter for _, parameter in named]
        for name, parameter in named:
            if isinstance(parameter, DTensor) and parameter.placements[-1] != Shard(0):
                raise NotImplementedError(f"{name} is placed as {parameter.placements}; only sharding by rows is known")
        sizes = torch.tensor([_flat(parameter.data).numel() for parameter in self.parameters])
        sizes = self.shards.gather(sizes.to(_flat(self.parameters[0].data).device)).cpu()
        first = (sizes.cumsum(0) - sizes)[self.shards.rank].tolist()
        self.slices = [ShardRange(name, int(offset)) for (name, _), offset in zip(named, first, strict=True)]
        self.adapter = [number for number, (name, _) in enumerate(named) if is_adapter(name)]

    def weights(self) -> list[Tensor]:
        """Flat views of this rank's master weights, as they are now."""
        return [_flat(parameter.data) for parameter in self.parameters]

    def gradients(self) -> list[Tensor | None]:
        """Flat views of this rank's gradients; None where a parameter has none."""
        return [None if parameter.grad is None else _flat(parameter.grad) for parameter in self.parameters]

    def optimizer_state(self, optimizer: Optimizer) -> Iterator[tuple[int, str, Tensor]]:
        """(parameter's number, name, flat view) of every optimizer state that has one value a coordinate.

        Raises ValueError if a state has less than 16 bits a value: such values share scales and cannot be put back.
        """
        for number, parameter in enumerate(self.parameters):
            for name, value in sorted(optimizer.state.get(parameter, {}).items()):
                if not isinstance(value, Tensor) or not value.ndim:
                    continue
                local = value.to_local() if isinstance(value, DTensor) else value
                if local.element_size() < 2 or type(local) is not Tensor:
                    raise ValueError(
                        f"actor_rollout_ref.actor.optim.optimizer={type(optimizer).__name__} must keep its moments in "
                        f"at least 16 bits, and {name} is {type(local).__name__} of {local.dtype}; use AdamW"
                    )
                if value.shape == parameter.shape:
                    yield number, name, _flat(value)

    def forget_gradients(self, of_adapter: bool) -> None:
        """The adapter has no gradients any more, or all other parameters: an optimizer passes them over."""
        for number, parameter in enumerate(self.parameters):
            if (number in self.adapter) is of_adapter:
                parameter.grad = None

    def fold_adapter(self) -> None:
        """W <- W + (alpha / r) B A in float32, then B <- 0. Collective."""
        fold_(self.module)
        self.reshard()

    def num_weights(self) -> int:
        """The weights that multiply, over all ranks, trainable or not (``mifo_verl.run.compute``)."""
        named = self.module.named_parameters()
        return multiplying_weights((kind_of(name), parameter.numel()) for name, parameter in named)

    def reshard(self) -> None:
        """Forget gathered copies of the weights, so that the next forward pass reads the shards."""
        for submodule in self.module.modules():
            if isinstance(submodule, FSDPModule):
                submodule.reshard()

    @contextmanager
    def swapped(self, weights: list[Tensor]) -> Iterator[None]:
        """Run with other weights of the same shards; the model's own come back bit-identical."""
        own = [weight.clone() for weight in self.weights()]
        self.write(weights)
        try:
            yield
        finally:
            self.write(own)

    @torch.no_grad()
    def write(self, weights: list[Tensor]) -> None:
        """Other weights into the same shards."""
        for target, source in zip(self.weights(), weights, strict=True):
            target.copy_(source)
        self.reshard()


def save_shards(folder: Path, state: Mapping[str, Tensor], rank: int, ranks: int) -> None:
    """Write this rank's part. Raises OSError if the disk refuses it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = rank_file(folder, rank, ranks)
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    except SafetensorError as error:  # no OSError, whatever the disk has said
        raise OSError(f"{file} could not be written: {error}") from None


def load_shards(folder: Path, rank: int, ranks: int) -> dict[str, Tensor]:
    """This rank's part, on the host. Raises ValueError if the checkpoint is of another number of ranks."""
    file = rank_file(folder, rank, ranks)
    if not file.exists():
        raise ValueError(f"{file} does not exist: the checkpoint is of another number of ranks than {ranks}")
    return load_file(file)


def optimizer_tensors(prefix: str, model: ShardedModel, optimizer: Optimizer) -> dict[str, Tensor]:
    """The states of every parameter as ``<prefix><parameter's number>.<name>``, the step counts among them."""
    states = {f"{prefix}{number}.{name}": value for number, name, value in model.optimizer_state(optimizer)}
    for number, parameter in enumerate(model.parameters):
        if "step" in optimizer.state.get(parameter, {}):
            step = torch.as_tensor(optimizer.state[parameter]["step"]).reshape(1)
            states[f"{prefix}{number}.step"] = step
    return states


def load_optimizer(prefix: str, model: ShardedModel, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give an optimizer what ``optimizer_tensors`` has taken from one."""
    for number, parameter in enumerate(model.parameters):
        own = f"{prefix}{number}."
        restore_(optimizer, parameter, {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)})


def restore_(optimizer: Optimizer, parameter: Tensor, states: dict[str, Tensor]) -> None:
    """Give an optimizer the states of one parameter; a step count on the device if its kernel reads it there."""
    for name, value in states.items():
        if name == "step":
            on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
            device = parameter.device if on_device else value.device
            optimizer.state[parameter]["step"] = value.reshape(()).to(device, copy=True)
            continue
        state = optimizer.state[parameter].setdefault(name, torch.zeros_like(parameter))
        local = state.to_local() if hasattr(state, "to_local") else state
        local.view(-1).copy_(value)


def rank_file(folder: Path, rank: int, ranks: int) -> Path:
    """Where one rank's part of an interval lies in a checkpoint's folder of ours."""
    return folder / f"rank_{rank}_of_{ranks}.safetensors"
