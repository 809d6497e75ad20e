"""The interval state beside verl's checkpoint: ``global_step_N/mifo/`` (JSON and safetensors, no pickle).

``controller.json`` holds the phase, the counts and the buffer with its provenance; each rank writes its own shards of
theta_start, the importance history and the separate SFT optimizer. A checkpoint is made between steps, when no SFT
phase runs and no mask is held. It is read back for the same number of ranks only.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.bridge.interval import IntervalState
from mifo_verl.bridge.shards import ShardedModel
from mifo_verl.types import BufferEntry, PromptGroup, SftExample

FORMAT = 1
FOLDER = "mifo"


def save_controller(
    folder: Path, counts: dict[str, int], buffer: Iterable[BufferEntry], accuracy_start: dict[str, float]
) -> None:
    """Write the controller's part."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [asdict(entry) for entry in buffer]
    state = {"format": FORMAT, "counts": counts, "buffer": entries, "accuracy_start": accuracy_start}
    (folder / "controller.json").write_text(json.dumps(state) + "\n")


def load_controller(folder: Path) -> tuple[dict[str, int], list[BufferEntry], dict[str, float]]:
    """Read the controller's part. Raises ValueError on another format."""
    state = json.loads((folder / "controller.json").read_text())
    if state["format"] != FORMAT:
        raise ValueError(f"{folder} has format {state['format']}, and this version reads format {FORMAT}")
    return state["counts"], [_entry(entry) for entry in state["buffer"]], state["accuracy_start"]


def _entry(entry: dict[str, Any]) -> BufferEntry:
    example = entry["example"] | {key: tuple(entry["example"][key]) for key in ("prompt_ids", "response_ids")}
    return BufferEntry(None if entry["group"] is None else PromptGroup(**entry["group"]), SftExample(**example))


def save_shards(folder: Path, interval: IntervalState, separate: Optimizer | None, rank: int, ranks: int) -> None:
    """Write this rank's part."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _named("start", interval.start) | _named("history", interval.history)
    if separate is not None:
        tensors |= {f"optimizer.{number}.{name}": state for number, name, state in _states(interval.model, separate)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, _file(folder, rank, ranks))


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
    for part in ("start", "history"):
        held = [saved[f"{part}.{number}"].to(device) for number in numbers] if f"{part}.0" in saved else None
        setattr(interval, part, held)
    if separate is not None:
        for number, parameter in enumerate(interval.model.parameters):
            _restore(separate, parameter, {k.split(".")[2]: v for k, v in saved.items() if _is_of(k, number)})


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
