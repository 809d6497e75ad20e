"""The mask of a checkpoint: the last one, and the one that an SFT phase would hold now.

The importance history is 0 outside the last mask (C = M * C~); without a history the last mask is kept by itself. The
mask of now is the choice of the run's constraint by alpha * C + (1 - alpha) * the run's importance since theta_start.
Weights are read tensor by tensor; beside them there is a byte a coordinate for the mask.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mifo_verl.errors import exact_share
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.importance import accumulate_
from mifo_verl.method.top_share import OneShard
from mifo_verl.probes.mask import MaskInspection
from mifo_verl.run.journal import CONFIG
from mifo_verl.tools.inspect.sources import IntervalPart, ShardedCheckpoint, Weights, common_names
from mifo_verl.tools.parts import described, part_of
from mifo_verl.tools.run_files import with_new_names


@dataclass(frozen=True)
class MaskRule:
    """What decides a mask: the parts of the run; None if nobody here knows them."""

    constraint: Any
    importance: Any
    words: str


@dataclass(frozen=True)
class CheckpointMask:
    """``table`` is ``MaskInspection``'s: ``previous`` the last mask, ``frozen`` that of now, ``rl`` since the start.

    What the checkpoint does not tell has no column.
    """

    table: dict[str, dict[str, list[Any]]]
    threshold: float | None
    """Of the mask of now; None if it is not worked out."""
    inside_sft: bool
    """Made inside an SFT phase: ``frozen`` is the mask that it holds."""


def mask_rule(folder: Path, **given: str) -> MaskRule:
    """The rule of the run that the checkpoint is of, with the settings of its constraint that are ``given``.

    Raises ValueError if the run's config is not above the checkpoint, or a setting is given inside an SFT phase.
    """
    config = next((file for parent in folder.resolve().parents if (file := parent / CONFIG).exists()), None)
    if config is None:
        raise ValueError(f"{folder} must lie in the folder of its run, whose {CONFIG} has the rule; put it back there")
    if given and _part(folder, "frozen") is not None:
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{told} must be of a mask of now; {folder} was made inside an SFT phase, whose mask it holds")
    mifo = with_new_names(yaml.load(config.read_text(), yaml.CSafeLoader))["mifo"]
    parts = {"mifo": mifo | {"constraint": mifo.get("constraint", {}) | given}}
    words = "; ".join(
        f"{group}: {text}" for group, text in described(parts).items() if group in ("constraint", "importance")
    )
    return MaskRule(part_of(parts, "constraint"), part_of(parts, "importance"), words)


def checkpoint_mask(folder: Path, rule: MaskRule) -> CheckpointMask:
    """What ``folder`` (a ``global_step_N``) says of its masks. Raises ValueError if it keeps no interval state."""
    end, start = ShardedCheckpoint(folder), IntervalPart(folder, "start")
    history, held = _part(folder, "history"), _part(folder, "frozen")
    # inside an SFT phase the history is of the mask that it holds, and the one before is lost
    last = None if held is not None else history or _part(folder, "inspection.last")
    names = common_names(end, start)
    alpha = float(exact_share("history", getattr(rule.constraint, "history", 0)))
    interval = _interval(folder)

    def score(name: str) -> Tensor:
        where = ShardRange(name, 0)
        score_N = rule.importance(start.tensor(name).flatten(), end.tensor(name).flatten(), where, interval)
        old_N = torch.zeros_like(score_N) if history is None else history.tensor(name).float().flatten()
        return accumulate_(old_N, score_N, alpha)

    scores = _Made(names, score)
    is_known = (
        held is None and rule.constraint is not None and rule.importance is not None and not rule.importance.needs
    )
    selection = rule.constraint.choose(scores, OneShard()) if is_known else None
    inspection = MaskInspection(names)
    for number, name in enumerate(names):
        start_N, end_N = start.tensor(name).flatten(), end.tensor(name).flatten()
        nothing_N = torch.zeros_like(end_N, dtype=torch.bool)
        frozen_N = selection.frozen[number] if selection else held.tensor(name).flatten() if held else nothing_N
        previous_N = None if last is None else last.tensor(name).flatten() != 0
        inspection.mask(number, frozen_N, scores[number] if selection else nothing_N, previous_N)
        inspection.rl_tensor(number, start_N, end_N)
    table = inspection.table(OneShard(), torch.device("cpu"))
    has_mask = selection is not None or held is not None
    columns = {"previous": last is not None, "frozen": has_mask, "frozen_and_previous": has_mask and last is not None}
    columns["zero_score"] = selection is not None
    told = {by: {key: own for key, own in groups.items() if columns.get(key, True)} for by, groups in table.items()}
    return CheckpointMask(told, selection.threshold if selection else None, held is not None)


class _Made(Sequence[Tensor]):
    """The tensors of these names, each made when it is asked for and not kept."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Tensor]) -> None:
        self._names = names
        self._make = make

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        return self._make(self._names[number])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._make, self._names)


def _part(folder: Path, part: str) -> Weights | None:
    try:
        return IntervalPart(folder, part)
    except ValueError:
        return None


def _interval(folder: Path) -> int:
    """The interval that the checkpoint is of; older versions have another name for the file."""
    files = [folder / "mifo" / name for name in ("loop.json", "controller.json")]
    return next((int(json.loads(file.read_text())["interval"]) for file in files if file.exists()), 1)
