"""The interval state beside verl's checkpoint: ``global_step_N/mifo/`` (JSON and safetensors, no pickle).

``controller.json`` holds the counts, the buffer with its provenance and, where a run was stopped inside an SFT phase,
how far that phase is; each rank writes its own shards of theta_start, the importance history, the mask held and the SFT
phase's own optimizer. It is read back for the same number of ranks only.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from mifo_verl.probes.tokens import TokenSummary
from mifo_verl.probes.types import Before
from mifo_verl.types import BufferEntry, PromptGroup, SftExample
from mifo_verl.verl.interval import IntervalState
from mifo_verl.verl.shards import ShardedModel

FOLDER = "mifo"
_INSPECTION = "inspection."


@dataclass
class SftProgress:
    """An SFT phase on its way."""

    entries: list[BufferEntry]
    """What the phase trains on, in the order taken from the buffer."""
    buffer_size: int
    """What the buffer held when the phase began."""
    mask: dict[str, Any] | None
    rejected: dict[str, int]
    before: Before | None = None
    """What the probes measured before it; None where they did not."""
    updates: list[dict[str, Any]] = field(default_factory=list)
    """The records of the updates made so far."""
    ledger: list[dict[str, Any]] = field(default_factory=list)
    rl_line: dict[str, Any] | None = None
    """The record of the RL step that filled the buffer, where it is not written yet."""
    tokens: TokenSummary | None = None
    """The tokens of the updates made so far, where they are inspected."""


@dataclass
class ControllerState:
    """What the controller has to know again."""

    interval: int
    rl_steps: int
    drawn: int
    """Prompts drawn from the data set so far."""
    elapsed_seconds: float
    buffer: list[BufferEntry]
    accuracy_start: dict[str, float]
    sft: SftProgress | None = None
    solved: list[str] = field(default_factory=list)
    """Ids of the training prompts last seen solved."""
    cross_entropy_start: float | None = None
    """Of the held-out demonstrations at the start of the interval, where it was measured."""
    kl_in_reward: float | None = None
    """verl's coefficient of the KL penalty in the reward, which its adaptive controller moves at every step."""
    measured_on: str = ""
    """``measured_on`` of the probe data that these values were measured on."""
    uncounted_tokens: int = 0
    """Response tokens that probes have passed forward and no record counts yet."""

    def as_origin(self, folder: Path, step: int) -> dict[str, Any]:
        """What the records of another run that goes on from here follow: this step, interval and these hard prompts."""
        held = [*self.buffer, *(self.sft.entries if self.sft is not None else [])]
        groups = [entry.group for entry in held if entry.group is not None]
        counts = [[group.prompt_id, group.num_correct, group.num_rollouts] for group in groups]
        return {"checkpoint": str(folder), "step": step, "interval": self.interval, "prompts": counts}


def save_controller(folder: Path, state: ControllerState) -> None:
    """Write the controller's part."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = None if state.sft is None else state.sft.tokens
    plain = asdict(state if state.sft is None else replace(state, sft=replace(state.sft, tokens=None)))
    if tokens is not None:
        plain["sft"]["tokens"] = tokens.state()
    (folder / "controller.json").write_text(json.dumps(plain) + "\n")


def load_controller(folder: Path) -> ControllerState:
    """Read the controller's part."""
    state = json.loads((folder / "controller.json").read_text())
    state["buffer"] = [_entry(entry) for entry in state["buffer"]]
    if state["sft"] is not None:
        sft = state["sft"]
        before = None if sft["before"] is None else Before.of(sft["before"])
        entries = [_entry(entry) for entry in sft["entries"]]
        tokens = TokenSummary.restored(sft["tokens"]) if sft.get("tokens") else None
        state["sft"] = SftProgress(**sft | {"entries": entries, "before": before, "tokens": tokens})
    return ControllerState(**state)


def _entry(entry: dict[str, Any]) -> BufferEntry:
    example = entry["example"] | {key: tuple(entry["example"][key]) for key in ("prompt_ids", "response_ids")}
    return BufferEntry(None if entry["group"] is None else PromptGroup(**entry["group"]), SftExample(**example))


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
