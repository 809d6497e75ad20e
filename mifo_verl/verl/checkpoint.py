"""What every rank keeps of an interval, beside verl's checkpoint: ``global_step_N/mifo/`` (safetensors, no pickle).

Each rank writes its own shards of theta_start, the importance history, the mask held and the SFT phase's own optimizer.
They are read back for the same number of ranks only.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.verl.interval import IntervalState
from mifo_verl.verl.shards import ShardedModel

FOLDER = "mifo"
_INSPECTION = "inspection."


def save_shards(folder: Path, interval: IntervalState, separate: Optimizer | None, rank: int, ranks: int) -> None:
    """Write this rank's part; ``separate`` is the SFT phase's optimizer where it is not the RL phase's.

    Raises OSError where the disk refuses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _named("start", interval.start) | _named("history", interval.history) | _named("frozen", interval.frozen)
    if interval.updates:
        tensors["updates"] = torch.tensor([interval.updates])
    tensors |= {f"{_INSPECTION}{name}": tensor for name, tensor in interval.inspection_state().items()}
    if separate is not None:
        tensors |= {f"optimizer.{number}.{name}": state for number, name, state in _states(interval.model, separate)}
    file = _file(folder, rank, ranks)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:  # no OSError, whatever the disk has said
        raise OSError(f"{file} could not be written: {error}") from None


def load_shards(folder: Path, interval: IntervalState, separate: Optimizer | None, rank: int, ranks: int) -> None:
    """Read this rank's part back, into an optimizer whose states exist where one was saved.

    Raises ValueError where the checkpoint is of another number of ranks.
    """
    file = _file(folder, rank, ranks)
    if not file.exists():
        raise ValueError(f"{file} does not exist: the checkpoint is of another number of ranks than {ranks}")
    saved = load_file(file)
    device = interval.model.weights()[0].device
    numbers = range(len(interval.model.parameters))
    for part in ("start", "history", "frozen"):
        held = [saved[f"{part}.{number}"].to(device) for number in numbers] if f"{part}.0" in saved else None
        setattr(interval, part, held)
    interval.updates = int(saved["updates"]) if "updates" in saved else 0
    interval.restore_inspection({k.removeprefix(_INSPECTION): v for k, v in saved.items() if k.startswith(_INSPECTION)})
    if separate is not None:
        for number, parameter in enumerate(interval.model.parameters):
            _restore(separate, parameter, {k.split(".")[2]: v for k, v in saved.items() if _is_of(k, number)})


def require_every_rank(folder: Path, ranks: int, roles: Iterable[str]) -> None:
    """Every rank's files are in a checkpoint's folder, as seen here. Raises OSError with those that are not."""
    engine = ("model", "optim", "extra_state")
    names = [
        f"{role}/{part}_world_size_{ranks}_rank_{rank}.pt" for role in roles for part in engine for rank in range(ranks)
    ]
    names += [str(_file(Path(FOLDER), rank, ranks)) for rank in range(ranks)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OSError(
            f"{len(missing)} of the ranks' {len(names)} files are missing, such as {', '.join(missing[:3])}: "
            "trainer.default_local_dir must be a folder that all nodes share"
        )


def _states(model: ShardedModel, optimizer: Optimizer) -> Iterable[tuple[int, str, Tensor]]:
    """The states of every parameter, those with one value a coordinate and the step count."""
    yield from model.optimizer_state(optimizer)
    for number, parameter in enumerate(model.parameters):
        if "step" in optimizer.state.get(parameter, {}):
            yield number, "step", torch.as_tensor(optimizer.state[parameter]["step"]).reshape(1)


def _restore(optimizer: Optimizer, parameter: Tensor, states: dict[str, Tensor]) -> None:
    for name, value in states.items():
        if name == "step":
            optimizer.state[parameter]["step"] = value.reshape(()).clone()
            continue
        state = optimizer.state[parameter].setdefault(name, torch.zeros_like(parameter))
        local = state.to_local() if hasattr(state, "to_local") else state
        local.view(-1).copy_(value)


def _is_of(name: str, number: int) -> bool:
    return name.startswith(f"optimizer.{number}.")


def _named(part: str, tensors: list[Tensor] | None) -> dict[str, Tensor]:
    return {f"{part}.{number}": tensor for number, tensor in enumerate(tensors or [])}


def _file(folder: Path, rank: int, ranks: int) -> Path:
    return folder / f"rank_{rank}_of_{ranks}.safetensors"
