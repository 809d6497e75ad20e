"""The mask of a checkpoint: the last one, and the one that an SFT phase would freeze now; tensor by tensor.

The importance history is 0 outside the last mask (C = M * C~); without a history the last mask is kept by itself. The
mask of now is the top share of alpha * C + (1 - alpha) * |theta - theta_start|, found as on the shards: by two
histograms, without the whole model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mifo_verl.errors import exact_share
from mifo_verl.method.top_share import OneShard, bin_of, histogram, select_top_share
from mifo_verl.probes.mask import MaskInspection
from mifo_verl.tools.inspect.sources import IntervalPart, ShardedCheckpoint, Weights, common_names


@dataclass(frozen=True)
class FreezeSettings:
    """What decides a mask; those of the run, where its config is beside the checkpoint."""

    share: str
    history: str
    scope: str
    importance: str = "abs_change"


@dataclass(frozen=True)
class CheckpointMask:
    """``table`` is ``MaskInspection``'s: ``previous`` the last mask, ``frozen`` that of now, ``rl`` since the start.

    What the checkpoint does not tell has no column.
    """

    table: dict[str, dict[str, list[Any]]]
    threshold: float | None
    """Of the mask of now; None where it is not worked out."""
    inside_sft: bool
    """Made inside an SFT phase: ``frozen`` is the mask that it holds."""


def freeze_settings(folder: Path, share: str | None, history: str | None) -> FreezeSettings:
    """Those given, else those of the run's config, else the paper's.

    Raises ValueError where one is given and no mask of now is worked out.
    """
    config = next(
        (parent / "config.yaml" for parent in folder.resolve().parents if (parent / "config.yaml").exists()), None
    )
    mifo = {} if config is None else yaml.load(config.read_text(), yaml.CSafeLoader)["mifo"]
    node, importance = mifo.get("constraint", {}), mifo.get("importance", {}).get("name", "abs_change")
    given = [f"{name}={value}" for name, value in (("share", share), ("history", history)) if value]
    inside = _part(folder, "frozen") is not None
    if given and (inside or importance != "abs_change"):
        why = "it was made inside an SFT phase" if inside else f"mifo.importance.name={importance}"
        raise ValueError(f"{given[0]} must be of a mask worked out from weights; {folder} has none: {why}; remove it")
    return FreezeSettings(
        share=str(share or node.get("share", "0.5")),
        history=str(history or node.get("history", "0.5")),
        scope=str(node.get("scope", "global")),
        importance=importance,
    )


def checkpoint_mask(folder: Path, settings: FreezeSettings) -> CheckpointMask:
    """What ``folder`` (a ``global_step_N``) says of its masks. Raises ValueError where it keeps no interval state."""
    end, start = ShardedCheckpoint(folder), IntervalPart(folder, "start")
    history, held = _part(folder, "history"), _part(folder, "frozen")
    # inside an SFT phase the history is of the mask that it holds, and the one before is lost
    last = None if held is not None else history or _part(folder, "inspection.last")
    names = common_names(end, start)
    alpha = float(exact_share("history", settings.history))

    def score(name: str) -> Tensor:
        change_N = (end.tensor(name).float() - start.tensor(name).float()).abs().flatten()
        old_N = torch.zeros_like(change_N) if history is None else history.tensor(name).float().flatten()
        return alpha * old_N + (1 - alpha) * change_N

    of_now = held is None and settings.importance == "abs_change"
    rule = _per_tensor if settings.scope == "per_tensor" else _global
    masks = rule(names, score, settings.share) if of_now else _held(names, held, end)
    inspection, threshold = MaskInspection(names), float("inf")
    for number, (name, (frozen_N, smallest)) in enumerate(zip(names, masks, strict=True)):
        previous_N = None if last is None else last.tensor(name).flatten() != 0
        inspection.mask(number, frozen_N, score(name), previous_N)
        inspection.rl_tensor(number, start.tensor(name).flatten(), end.tensor(name).flatten())
        threshold = min(threshold, smallest)
    table = inspection.table(OneShard(), torch.device("cpu"))
    told = _told(table, has_last=last is not None, has_mask=of_now or held is not None, has_score=of_now)
    return CheckpointMask(told, threshold if of_now else None, held is not None)


def _part(folder: Path, part: str) -> Weights | None:
    try:
        return IntervalPart(folder, part)
    except ValueError:
        return None


def _told(table: dict[str, Any], has_last: bool, has_mask: bool, has_score: bool) -> dict[str, Any]:
    """The table without the columns that nothing tells."""
    columns = {"previous": has_last, "frozen": has_mask, "frozen_and_previous": has_last and has_mask}
    columns["zero_score"] = has_score
    return {by: {key: own for key, own in groups.items() if columns.get(key, True)} for by, groups in table.items()}


Mask = tuple[Tensor, float]


def _held(names: list[str], held: Weights | None, model: Weights) -> Iterator[Mask]:
    """The mask held; without one, nothing of the model."""
    for name in names:
        frozen = torch.zeros_like(model.tensor(name), dtype=torch.bool) if held is None else held.tensor(name)
        yield frozen.flatten(), float("inf")


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
