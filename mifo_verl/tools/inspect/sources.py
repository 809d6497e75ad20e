"""Weights on disk, read tensor by tensor: Hugging Face folders, and our checkpoints from their shards.

A source is written ``<folder>``, or ``<folder>@<part>``: the weights of a checkpoint; ``start``, theta_start of its
interval; ``history``, its importance history, which is 0 outside the last mask; ``frozen``, the mask of the SFT phase
that it was made in.
"""

import json
import logging
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed.tensor  # so that torch.load knows its DTensor as safe
from safetensors import safe_open
from torch import Tensor

_PARTS = ("start", "history", "frozen")


class Weights(Protocol):
    """Named tensors, of which one at a time is in memory."""

    def names(self) -> list[str]:
        """In the model's order."""
        ...

    def tensor(self, name: str) -> Tensor: ...


class HuggingFaceFolder:
    """``model.safetensors``, or the files that ``model.safetensors.index.json`` lists."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if index.exists():
            files = json.loads(index.read_text())["weight_map"]
            self._files = {name: folder / file for name, file in files.items()}
        else:
            with safe_open(folder / "model.safetensors", "pt") as file:
                self._files = {name: folder / "model.safetensors" for name in file.keys()}

    def names(self) -> list[str]:
        return list(self._files)

    def tensor(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as file:
            found: Tensor = file.get_tensor(name)
        return found


class ShardedCheckpoint:
    """verl's ``global_step_N/actor/model_world_size_W_rank_R.pt``, mapped, not read."""

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "actor").glob("model_world_size_*_rank_*.pt"), key=_rank_of)
        if not files:
            raise ValueError(f"{folder} must hold a checkpoint; its actor/ has no model_world_size_*_rank_*.pt")
        ranks = int(files[0].stem.split("_")[3])
        if [_rank_of(file) for file in files] != list(range(ranks)):
            raise ValueError(f"{folder} must hold the shards of {ranks} ranks; {len(files)} are there")
        mesh = logging.getLogger("torch.distributed.device_mesh")
        level = mesh.level
        mesh.setLevel(logging.ERROR)  # it warns that there is no process group, and none is needed
        self._shards: list[dict[str, Any]] = [
            torch.load(file, map_location="cpu", mmap=True, weights_only=True) for file in files
        ]
        mesh.setLevel(level)
        config = folder / "actor" / "huggingface" / "config.json"
        tied = config.exists() and json.loads(config.read_text()).get("tie_word_embeddings", False)
        self._names = [name for name in self._shards[0] if not (tied and name == "lm_head.weight")]

    def names(self) -> list[str]:
        return list(self._names)

    def tensor(self, name: str) -> Tensor:
        """The parts of all ranks below each other; replicas come after the whole and are cut off."""
        first = self._shards[0][name]
        if not hasattr(first, "to_local"):
            return _tensor(first)
        rows = torch.cat([shard[name].to_local() for shard in self._shards])[: first.shape[0]]
        if rows.shape != first.shape:
            raise ValueError(f"the shards of {name} make {tuple(rows.shape)}, not {tuple(first.shape)}")
        return rows


class IntervalPart:
    """theta_start, history or mask of ``global_step_N/mifo/rank_R_of_W.safetensors``, in the model's order."""

    def __init__(self, folder: Path, part: str) -> None:
        self._model = ShardedCheckpoint(folder)
        self._files = sorted((folder / "mifo").glob("rank_*_of_*.safetensors"), key=_rank_of_part)
        self._part = part
        self._numbers = {name: number for number, name in enumerate(self._model.names())}
        if not self._files or f"{part}.0" not in self._keys():
            raise ValueError(f"{folder} must hold the interval's {part}; the run that made it kept none")
        if f"{part}.{len(self._numbers)}" in self._keys():
            raise ValueError(f"{folder}/mifo holds more tensors than the model has names")

    def names(self) -> list[str]:
        return self._model.names()

    def tensor(self, name: str) -> Tensor:
        shape = self._model.tensor(name).shape
        parts = []
        for path in self._files:
            with safe_open(path, "pt") as file:
                parts.append(file.get_tensor(f"{self._part}.{self._numbers[name]}"))
        return torch.cat(parts)[: shape.numel()].view(shape)

    def _keys(self) -> set[str]:
        with safe_open(self._files[0], "pt") as file:
            return set(file.keys())


def open_weights(text: str) -> Weights:
    """The source that ``text`` names. Raises ValueError where nothing of the kind is there."""
    path, _, part = text.rpartition("@") if text.rpartition("@")[2] in _PARTS else (text, "", "")
    folder = Path(path)
    if part:
        return IntervalPart(folder, part)
    if (folder / "model.safetensors").exists() or (folder / "model.safetensors.index.json").exists():
        return HuggingFaceFolder(folder)
    if (folder / "actor").is_dir():
        return ShardedCheckpoint(folder)
    raise ValueError(f"weights={text} must be a Hugging Face folder or a checkpoint global_step_N of a run")


def common_names(*sources: Weights) -> list[str]:
    """The names of the first source, which all must have; a tied head may be left out by some.

    Raises ValueError on models that are not the same.
    """
    sets = [set(source.names()) for source in sources]
    shared = set.intersection(*sets)
    missing = set.union(*sets) - shared - {"lm_head.weight"}
    if missing:
        raise ValueError(f"the models differ: {len(missing)} tensors are not in all of them, such as {min(missing)}")
    return [name for name in sources[0].names() if name in shared]


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _rank_of(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _rank_of_part(file: Path) -> int:
    return int(file.stem.split("_")[1])
