"""M = TopK(C~, k): the top share k of all coordinates, exactly, across shards (MIFO section 3, step 5).

No parameter is gathered. Positive float32 numbers are ordered like their bit patterns, so two histograms of 16 bits
each, summed over the shards, find the exact k-th largest score. Ties at the threshold go to the earlier coordinate,
in the order of the parameters and of the flattened tensor, so that the mask does not depend on the number of shards.
A score of 0 is never selected.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mifo_verl.errors import exact_share
from mifo_verl.types import Share

_BINS = 1 << 16
_CHUNK = 1 << 24


class Shards(Protocol):
    """The processes that together hold every coordinate once. All of them call in the same order."""

    rank: int
    """This shard's row in ``gather``."""

    def sum(self, counts: Tensor) -> Tensor:
        """The elementwise sum of an int64 tensor over the shards."""
        ...

    def gather(self, counts: Tensor) -> Tensor:
        """An int64 vector of every shard, as rows in the order in which the shards hold a tensor's coordinates."""
        ...


class OneShard:
    """All coordinates in this process."""

    rank = 0

    def sum(self, counts: Tensor) -> Tensor:
        return counts

    def gather(self, counts: Tensor) -> Tensor:
        return counts[None]


class OnDevice(Sequence[Tensor]):
    """Tensors that may lie on the host, each on the device while it is asked for."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self._tensors = tensors
        self._device = device

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]  # nobody asks for slices
        return self._tensors[number].to(self._device)


@dataclass(frozen=True)
class Selection:
    """What the top share selected, over all shards."""

    frozen: list[Tensor]
    """This shard's masks (bool), one a tensor, True where the coordinate is selected."""
    num_coordinates: int
    num_positive: int
    num_frozen: int
    threshold: float
    """The smallest score selected; infinity where nothing is."""


def select_top_share(scores: Sequence[Tensor], share: Share, shards: Shards | None = None) -> Selection:
    """Select floor(share * N) of the N coordinates of all tensors and shards, or all positive ones where fewer are.

    ``scores`` are this shard's flat float32 tensors, >= 0, the same number of tensors on every shard (some may be
    empty). Each is asked for five times and not kept, so a sequence may make them when it is asked. Memory beside the
    masks is a few chunks of 16M coordinates.

    Raises ValueError where a score is negative, infinite or NaN, on every shard.
    """
    shards = shards or OneShard()
    counts = [_counts(chunk) for score in scores for chunk in score.split(_CHUNK)]
    totals = shards.sum(torch.stack(counts).sum(dim=0)).tolist()
    num_coordinates, num_positive, num_invalid = (int(total) for total in totals)
    if num_invalid:
        raise ValueError(f"{num_invalid} importance scores are negative or not finite; the RL phase diverged")
    exact = exact_share("share", share)
    count = min(num_coordinates * exact.numerator // exact.denominator, num_positive)
    if count == 0:
        nothing = [torch.zeros_like(score, dtype=torch.bool) for score in scores]
        return Selection(nothing, num_coordinates, num_positive, 0, float("inf"))

    threshold, above = _largest(scores, count, shards)
    quota = _tie_quota(_keys(scores), threshold, count - above, shards)
    frozen = [_mask(key, threshold, int(ties)) for key, ties in zip(_keys(scores), quota.tolist(), strict=True)]
    return Selection(frozen, num_coordinates, num_positive, count, _value(threshold))


def median(scores: Sequence[Tensor], shards: Shards | None = None) -> float | None:
    """The median (the lower of two) of the scores of all tensors and shards, as ``select_top_share`` takes them.

    None without scores.
    """
    shards = shards or OneShard()
    totals = shards.sum(torch.stack([_counts(score) for score in scores]).sum(dim=0)).tolist()
    num_coordinates, num_positive, _ = (int(total) for total in totals)
    rank = num_coordinates // 2 + 1
    if not num_coordinates:
        return None
    return _value(_largest(scores, rank, shards)[0]) if rank <= num_positive else 0.0


def _keys(scores: Sequence[Tensor]) -> Iterator[Tensor]:
    return (score.view(torch.int32) for score in scores)


def _value(key: int) -> float:
    return float(torch.tensor(key, dtype=torch.int32).view(torch.float32).item())


def _largest(scores: Sequence[Tensor], rank: int, shards: Shards) -> tuple[int, int]:
    """The bits of the ``rank``-th largest score, which is positive, and how many scores are larger."""
    device = scores[0].device
    high, above = bin_of(shards.sum(histogram(_keys(scores), None, device)), rank)
    low, above_low = bin_of(shards.sum(histogram(_keys(scores), high, device)), rank - above)
    return (high << 16) | low, above + above_low


def select_top_share_per_tensor(scores: Sequence[Tensor], share: Share, shards: Shards | None = None) -> Selection:
    """The same rule inside every tensor by itself: floor(share * N) of each tensor's N coordinates.

    ``threshold`` is the smallest of the tensors' thresholds.
    """
    parts = [select_top_share([score], share, shards) for score in scores]
    return Selection(
        frozen=[part.frozen[0] for part in parts],
        num_coordinates=sum(part.num_coordinates for part in parts),
        num_positive=sum(part.num_positive for part in parts),
        num_frozen=sum(part.num_frozen for part in parts),
        threshold=min((part.threshold for part in parts), default=float("inf")),
    )


def _counts(chunk: Tensor) -> Tensor:
    """(coordinates, positive ones, those that are no score)."""
    size = torch.full((), chunk.numel(), device=chunk.device)
    return torch.stack([size, torch.count_nonzero(chunk), torch.count_nonzero(~((chunk >= 0) & (chunk < torch.inf)))])


def histogram(keys: Iterable[Tensor], high: int | None, device: torch.device) -> Tensor:
    """Counts (int64) of the positive scores by their high 16 bits, or, of those in bin ``high``, by their low 16."""
    counts = torch.zeros(_BINS, dtype=torch.int64, device=device)
    for key in keys:
        for chunk in key.split(_CHUNK):
            part = chunk[chunk > 0] if high is None else chunk[((chunk >> 16) == high) & (chunk > 0)]
            counts += torch.bincount(part >> 16 if high is None else part & 0xFFFF, minlength=_BINS)
    return counts


def bin_of(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the ``rank``-th largest element (rank >= 1), and how many elements lie in higher bins."""
    at_or_above = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(at_or_above, torch.tensor(rank, device=counts.device)).item())
    above = int(at_or_above[position - 1].item()) if position else 0
    return counts.numel() - 1 - position, above


def _tie_quota(keys: Iterable[Tensor], threshold: int, wanted: int, shards: Shards) -> Tensor:
    """How many ties at the threshold each of this shard's tensors may keep, in coordinate order over all shards."""
    own = torch.stack([torch.count_nonzero(key == threshold) for key in keys])
    in_order = shards.gather(own).t().reshape(-1)  # tensor by tensor, and in each the shards in order
    before = (in_order.cumsum(0) - in_order).view(own.numel(), -1)[:, shards.rank]
    return (wanted - before).clamp(min=0).minimum(own)


def _mask(key: Tensor, threshold: int, ties: int) -> Tensor:
    """True above the threshold and at its first ``ties`` occurrences."""
    frozen = key > threshold
    for key_part, frozen_part in zip(key.split(_CHUNK), frozen.split(_CHUNK), strict=True):
        if ties:
            first = (key_part == threshold).nonzero()[:ties, 0]
            frozen_part[first] = True
            ties -= first.numel()
    return frozen
