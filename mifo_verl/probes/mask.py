"""The mask and the two updates of an interval, counted by layer and by kind of matrix on every shard.

No parameter is gathered: each shard counts its own coordinates, and vectors of a few hundred numbers are summed over
the shards. ``moved`` is a change of the float32 master weight, ``visible`` one that a bfloat16 copy of it shows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mifo_verl.method.top_share import Shards
from mifo_verl.probes.columns import COUNTS, NORMS
from mifo_verl.probes.parameters import KINDS, in_order, kind_of, layer_of

_CHUNK = 1 << 24
_SUPPORTS = ((0, "moved"), (1, "visible"))


class MaskInspection:
    """The counts of an interval on one shard: ``mask`` and ``rl`` at the end of the RL phase, ``sft`` at that of SFT.

    ``names`` are the parameters' names, in the order in which tensors are given. The RL phase's support waits on the
    host for the SFT phase's: 2 bytes a coordinate.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._counts = torch.zeros(len(names), len(COUNTS), dtype=torch.int64)
        self._squares = torch.zeros(len(names), len(NORMS), dtype=torch.float64)
        self._rl: list[tuple[Tensor, Tensor]] = []

    def mask(self, number: int, frozen_N: Tensor, score_N: Tensor, previous_N: Tensor | None) -> None:
        """Count one tensor's mask, its scores of 0, and what it has in common with the mask before and RL's update."""
        previous_N = torch.zeros_like(frozen_N) if previous_N is None else previous_N.to(frozen_N.device)
        self._count(number, "frozen", frozen_N)
        self._count(number, "zero_score", score_N == 0)
        self._count(number, "previous", previous_N)
        self._count(number, "frozen_and_previous", previous_N & frozen_N)
        if self._rl:
            self._count(number, "frozen_rl_visible", self._rl[number][1] & frozen_N.cpu())

    def rl(self, start: Sequence[Tensor], end: Sequence[Tensor]) -> None:
        """Count the RL phase's update; the tensors are read, and its support is kept for ``sft``."""
        self._rl = [self.rl_tensor(number, *pair) for number, pair in enumerate(zip(start, end, strict=True))]

    def rl_tensor(self, number: int, start_N: Tensor, end_N: Tensor) -> tuple[Tensor, Tensor]:
        """Count one tensor of the RL phase's update; returns where it moved, and where visibly."""
        self._counts[number, COUNTS.index("coordinates")] = end_N.numel()
        return self._update(number, "rl", start_N, end_N)

    def sft(self, start: Sequence[Tensor], end: Sequence[Tensor]) -> None:
        """Count the SFT phase's update, and where it meets the RL phase's."""
        for number, pair in enumerate(zip(start, end, strict=True)):
            moved_N, visible_N = self._update(number, "sft", *pair)
            if self._rl:
                self._count(number, "both_moved", moved_N & self._rl[number][0])
                self._count(number, "both_visible", visible_N & self._rl[number][1])
        self._rl = []

    def state(self) -> dict[str, Tensor]:
        """What ``rl`` and ``mask`` have counted, to be saved inside an SFT phase; ``restore_`` takes it up."""
        parts = {f"{part}.{number}": pair[place] for place, part in _SUPPORTS for number, pair in enumerate(self._rl)}
        return {"counts": self._counts, "squares": self._squares} | parts

    def restore_(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved state of the same parameters."""
        self._counts, self._squares = state["counts"], state["squares"]
        self._rl = [(state[f"moved.{number}"], state[f"visible.{number}"]) for number in range(len(self._names))]

    def table(self, shards: Shards, device: torch.device) -> dict[str, dict[str, list[Any]]]:
        """``by_layer`` and ``by_kind``: columns over the groups, summed over all shards. Collective."""
        counts = shards.sum(self._counts.to(device)).cpu()
        squares = shards.sum(self._squares.to(device)).cpu()
        layers, kinds = [layer_of(name) for name in self._names], [kind_of(name) for name in self._names]
        by_layer = _columns("layer", layers, in_order(layers), counts, squares)
        return {"by_layer": by_layer, "by_kind": _columns("kind", kinds, list(KINDS), counts, squares)}

    def _count(self, number: int, name: str, true_N: Tensor) -> None:
        self._counts[number, COUNTS.index(name)] = int(torch.count_nonzero(true_N))

    def _update(self, number: int, phase: str, start_N: Tensor, end_N: Tensor) -> tuple[Tensor, Tensor]:
        """Where one tensor moved, and where visibly, on the host; its counts and its norm go into the table."""
        moved, visible, counts = [], [], torch.zeros(3, dtype=torch.float64)
        for start, end in zip(start_N.split(_CHUNK), end_N.split(_CHUNK), strict=True):
            start = start.to(end.device)
            parts = start != end, start.bfloat16() != end.bfloat16()
            square = (end.float() - start.float()).square_().sum(dtype=torch.float64)
            counts += torch.stack([*(torch.count_nonzero(part) for part in parts), square]).cpu()
            moved.append(parts[0].cpu())
            visible.append(parts[1].cpu())
        self._counts[number, COUNTS.index(f"{phase}_moved")] = int(counts[0])
        self._counts[number, COUNTS.index(f"{phase}_visible")] = int(counts[1])
        self._squares[number, NORMS.index(f"{phase}_norm")] = float(counts[2])
        return torch.cat(moved), torch.cat(visible)


def _columns(
    title: str, groups: Sequence[str], order: Sequence[str], counts: Tensor, squares: Tensor
) -> dict[str, list[Any]]:
    """One list a column, in ``order``; groups that no parameter belongs to are left out."""
    present = [group for group in order if group in set(groups)]
    rows = [[number for number, own in enumerate(groups) if own == group] for group in present]
    columns: dict[str, list[Any]] = {title: present}
    for place, name in enumerate(COUNTS[: counts.shape[1]]):  # a phase begun by an older version has counted fewer
        columns[name] = [int(counts[row, place].sum()) for row in rows]
    for place, name in enumerate(NORMS):
        columns[name] = [float(squares[row, place].sum().sqrt()) for row in rows]
    return columns
