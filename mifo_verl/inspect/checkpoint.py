"""The mask of a checkpoint: the last one, and the one that an SFT phase would freeze now; tensor by tensor.

The importance history is 0 outside the last mask (C = M * C~). The mask of now is the top share of
alpha * C + (1 - alpha) * |theta - theta_start|, found as on the shards: by two histograms, without the whole model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mifo_verl.inspect.mask import MaskInspection
from mifo_verl.inspect.sources import IntervalPart, ShardedCheckpoint, Weights, common_names
from mifo_verl.method.top_share import OneShard, bin_of, histogram, select_top_share
from mifo_verl.types import exact_share


@dataclass(frozen=True)
class FreezeSettings:
    """What decides a mask; those of the run, where its config is beside the checkpoint."""

    share: str
    history: str
    scope: str


@dataclass(frozen=True)
class CheckpointMask:
    """``table`` is ``MaskInspection``'s: ``previous`` the last mask, ``frozen`` that of now, ``rl`` since the start."""

    table: dict[str, dict[str, list[Any]]]
    threshold: float
    settings: FreezeSettings
    inside_sft: bool
    """Made inside an SFT phase: ``frozen`` is the mask that it holds, and without a threshold."""


def freeze_settings(folder: Path, share: str | None, history: str | None) -> FreezeSettings:
    """Those given, else those of the run's config, else the paper's. Raises ValueError on another importance."""
    config = next(
        (parent / "config.yaml" for parent in folder.resolve().parents if (parent / "config.yaml").exists()), None
    )
    mifo = {} if config is None else yaml.load(config.read_text(), yaml.CSafeLoader)["mifo"]
    importance = mifo.get("importance", {}).get("name", "abs_change")
    if importance != "abs_change":
        raise ValueError(f"mifo.importance.name={importance} must be abs_change to tell a mask from weights alone")
    node = mifo.get("freeze", {})
    return FreezeSettings(
        share=str(share or node.get("share", "0.5")),
        history=str(history or node.get("history", "0.5")),
        scope=str(node.get("scope", "global")),
    )


def checkpoint_mask(folder: Path, settings: FreezeSettings) -> CheckpointMask:
    """What ``folder`` (a ``global_step_N``) says of its masks. Raises ValueError where it keeps no interval state."""
    end, start = ShardedCheckpoint(folder), IntervalPart(folder, "start")
    history, held = _part(folder, "history"), _part(folder, "frozen")
    names = common_names(end, start)
    alpha = float(exact_share("history", settings.history))

    def scores(name: str) -> tuple[Tensor, Tensor]:
        """(importance, the last mask), flat."""
        change_N = (end.tensor(name).float() - start.tensor(name).float()).abs().flatten()
        old_N = torch.zeros_like(change_N) if history is None else history.tensor(name).float().flatten()
        return alpha * old_N + (1 - alpha) * change_N, old_N != 0

    inspection = MaskInspection(names)
    rule = _per_tensor if settings.scope == "per_tensor" else _global
    masks = rule(names, lambda name: scores(name)[0], settings.share) if held is None else _held(names, held)
    threshold = float("inf")
    for number, (name, (frozen_N, smallest)) in enumerate(zip(names, masks, strict=True)):
        score_N, previous_N = scores(name)
        inspection.mask(number, frozen_N, score_N, previous_N)
        inspection.rl_tensor(number, start.tensor(name).flatten(), end.tensor(name).flatten())
        threshold = min(threshold, smallest)
    return CheckpointMask(inspection.table(OneShard(), torch.device("cpu")), threshold, settings, held is not None)


def _part(folder: Path, part: str) -> Weights | None:
    try:
        return IntervalPart(folder, part)
    except ValueError:
        return None


Mask = tuple[Tensor, float]


def _held(names: list[str], held: Weights) -> Iterator[Mask]:
    yield from ((held.tensor(name).flatten(), float("inf")) for name in names)


def _per_tensor(names: list[str], score: Callable[[str], Tensor], share: str) -> Iterator[Mask]:
    for name in names:
        selection = select_top_share([score(name)], share)
        yield selection.frozen[0], selection.threshold


def _global(names: list[str], score: Callable[[str], Tensor], share: str) -> Iterator[Mask]:
    """``select_top_share`` over tensors that are made one at a time: three passes."""
    exact, size, positive = exact_share("share", share), 0, 0
    high = torch.zeros(1 << 16, dtype=torch.int64)
    for name in names:
        score_N = score(name)
        size, positive = size + score_N.numel(), positive + int(torch.count_nonzero(score_N))
        high += histogram([score_N.view(torch.int32)], None)
    count = min(size * exact.numerator // exact.denominator, positive)
    if count == 0:
        yield from ((torch.zeros_like(score(name), dtype=torch.bool), float("inf")) for name in names)
        return
    top, above = bin_of(high, count)
    low = torch.zeros(1 << 16, dtype=torch.int64)
    for name in names:
        low += histogram([score(name).view(torch.int32)], top)
    bottom, above_low = bin_of(low, count - above)
    key = (top << 16) | bottom
    ties = count - above - above_low
    value = torch.tensor(key, dtype=torch.int32).view(torch.float32).item()
    for name in names:
        key_N = score(name).view(torch.int32)
        frozen_N = key_N > key
        first = (key_N == key).nonzero()[:ties, 0]
        frozen_N[first] = True
        ties -= first.numel()
        yield frozen_N, value
