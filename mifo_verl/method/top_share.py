"""M = TopK(C~, k): the top share k of all coordinates, exactly, across shards (MIFO section 3, step 5).

No parameter is gathered. Positive float32 numbers are ordered like their bit patterns, their keys. Two histograms of 16
bits each, summed over the shards, find the exact k-th largest: the high bits of a sample say near which bins it lies,
and one pass over all scores counts what is above these and tells apart what is in them. If the sample has misled, the
high bits of all scores are counted. Ties at the threshold go to the earlier coordinate, in the order of the parameters
and of the flattened tensor, so that the mask does not depend on the number of shards. A score of 0 is never selected.

Work is in chunks that stay in a cache, by whole-number arithmetic: a boolean index costs a CPU fifty times as much as a
comparison that writes whole numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isqrt
from typing import Protocol

import torch
from torch import Tensor

from mifo_verl.errors import exact_share
from mifo_verl.method import packed
from mifo_verl.method.packed import PackedMask, PackedMasks, pack
from mifo_verl.types import Share

_BINS = 1 << 16
_INFINITE = 0x7F80
"""The bin of infinity; those above it are NaN, and from 0x8000 on negative."""
_INFINITY = _INFINITE << 16
_MINUS_ZERO = -(1 << 31)
_SAMPLED, _ONE_OF = 16, 61
"""A sample takes 16 neighbours and passes over 60 times as many; 61 is prime, so that it meets all columns."""
_MOST_BINS = 4
"""That a sample may leave in doubt."""


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


class Score(Protocol):
    """A flat float32 tensor, or what makes one chunk by chunk."""

    def split(self, split_size: int, /) -> Iterable[Tensor]: ...


class Streamed(Sequence[Score]):
    """Tensors that may lie on the host, on the device chunk by chunk while they are read."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self._tensors = tensors
        self._device = device

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, number: int) -> Score:  # type: ignore[override]  # nobody asks for slices
        return _Streamed(self._tensors[number], self._device)


class _Streamed:
    def __init__(self, tensor: Tensor, device: torch.device) -> None:
        self._tensor = tensor
        self._device = device

    def split(self, split_size: int) -> Iterable[Tensor]:
        return (chunk.to(self._device) for chunk in self._tensor.split(split_size))


class InvalidScores(ValueError):
    """Scores that are negative or not finite."""

    def __init__(self, num: int) -> None:
        super().__init__(f"{num} importance scores are negative or not finite; the RL phase diverged")
        self.num = num


@dataclass(frozen=True)
class Selection:
    """What the top share selected, over all shards."""

    frozen: PackedMasks
    """This shard's masks, one a tensor, True where the coordinate is selected: a bit a coordinate until asked for."""
    num_coordinates: int
    num_positive: int
    num_frozen: int
    threshold: float
    """The smallest score selected; infinity where nothing is."""


def select_top_share(scores: Sequence[Score], share: Share, shards: Shards | None = None) -> Selection:
    """Select floor(share * N) of the N coordinates of all tensors and shards, or all positive ones where fewer are.

    ``scores`` are this shard's flat float32 tensors, >= 0, the same number of tensors on every shard (some may be
    empty). Each is read in chunks, three times to six: more often where ties are left out or a sample misleads; none is
    kept, so they may be made when they are read. Memory beside the packed masks is a few chunks.

    Raises InvalidScores (a ValueError) where a score is negative, infinite or NaN, on every shard.
    """
    shards, exact = shards or OneShard(), exact_share("share", share)

    def count(num_coordinates: int, num_positive: int) -> int:
        return min(num_coordinates * exact.numerator // exact.denominator, num_positive)

    found = _find(scores, count, shards)
    if found.num_invalid:
        raise InvalidScores(found.num_invalid)
    ties: list[int | None] = [None] * len(scores)
    if found.ties_wanted < found.ties:
        ties = list(_tie_quota(scores, found, shards))
    frozen = [_mask(score, found.key, kept) for score, kept in zip(scores, ties, strict=True)]
    return Selection(PackedMasks(frozen), found.num_coordinates, found.num_positive, found.rank, _value(found.key))


def median(scores: Sequence[Score], shards: Shards | None = None) -> float | None:
    """The median (the lower of two) of the scores of all tensors and shards, as ``select_top_share`` takes them.

    None without scores.
    """

    def middle(num_coordinates: int, num_positive: int) -> int:
        rank = num_coordinates // 2 + 1
        return rank if rank <= num_positive else 0

    found = _find(scores, middle, shards or OneShard())
    if not found.num_coordinates:
        return None
    return _value(found.key) if found.rank else 0.0


def select_top_share_per_tensor(scores: Sequence[Score], share: Share, shards: Shards | None = None) -> Selection:
    """The same rule inside every tensor by itself: floor(share * N) of each tensor's N coordinates.

    ``threshold`` is the smallest of the tensors' thresholds.
    """
    parts = [select_top_share([score], share, shards) for score in scores]
    return Selection(
        frozen=PackedMasks([part.frozen.packed[0] for part in parts]),
        num_coordinates=sum(part.num_coordinates for part in parts),
        num_positive=sum(part.num_positive for part in parts),
        num_frozen=sum(part.num_frozen for part in parts),
        threshold=min((part.threshold for part in parts), default=float("inf")),
    )


@dataclass(frozen=True)
class _Found:
    """The ``rank``-th largest score by its key, or rank 0 and the key of infinity."""

    num_coordinates: int
    num_positive: int
    num_invalid: int = 0
    rank: int = 0
    key: int = _INFINITY
    ties: int = 0
    """Scores that are equal to it, over all shards."""
    ties_wanted: int = 0
    """Of these, those among the ``rank`` largest."""


def _find(scores: Sequence[Score], rank_of: Callable[[int, int], int], shards: Shards) -> _Found:
    """The score whose rank is ``rank_of(coordinates, positive ones)``. Collective."""
    for one_of in (_ONE_OF, 1):
        bins = shards.sum(_total(_high_bits(key, one_of) for key in _keys(scores)))
        low, high = _bracket(bins, rank_of, one_of)
        if one_of > 1 and high - low > _MOST_BINS * _BINS:
            continue
        counts = shards.sum(_total(_counts(key, low, high) for key in _keys(scores)))
        num_coordinates, num_positive, unlikely, above = counts[:4].tolist()
        if unlikely and (num_invalid := int(shards.sum(_total(_invalid(key) for key in _keys(scores))))):
            return _Found(num_coordinates, num_positive, num_invalid)
        rank = rank_of(num_coordinates, num_positive)
        if not rank:
            return _Found(num_coordinates, num_positive)
        at_or_above = counts[4:].flip(0).cumsum(0).add_(above)
        if above < rank <= int(at_or_above[-1]):
            place = int(torch.searchsorted(at_or_above, rank))
            above = int(at_or_above[place - 1]) if place else above
            ties = int(at_or_above[place]) - above
            return _Found(num_coordinates, num_positive, 0, rank, high - 1 - place, ties, rank - above)
    raise AssertionError("the bins of all scores hold every rank")


def _high_bits(key: Tensor, one_of: int) -> Tensor:
    """Counts (int64) of the keys by their high 16 bits, and of those that are 0; of a sample, or of all."""
    if one_of > 1 and key.numel() >= _SAMPLED:
        key = key[: key.numel() // _SAMPLED * _SAMPLED].view(-1, _SAMPLED)[::one_of].flatten()
    bins = torch.bincount((key >> 16).bitwise_and_(0xFFFF), minlength=_BINS)
    return torch.cat([bins, (key.numel() - torch.count_nonzero(key))[None]])


def _bracket(bins: Tensor, rank_of: Callable[[int, int], int], one_of: int) -> tuple[int, int]:
    """Keys [low, high) that hold the score: of all scores, one bin, and of a sample very likely, some more."""
    positive = bins[:_INFINITE].clone()
    positive[0] -= bins[-1]
    at_or_above = positive.flip(0).cumsum(0)
    num_coordinates, num_positive = int(bins[:-1].sum()), int(at_or_above[-1])
    rank, doubt = rank_of(num_coordinates, num_positive), 0 if one_of == 1 else 3 * isqrt(num_coordinates) + 1
    ends = [min(max(end, 1), max(num_positive, 1)) for end in (rank + doubt, rank - doubt)]
    low, high = (max(_INFINITE - 1 - int(torch.searchsorted(at_or_above, end)), 0) for end in ends)
    return low << 16, (high + 1) << 16


def _counts(key: Tensor, low: int, high: int) -> Tensor:
    """int64: coordinates, positive ones, 1 if a key is no score (or -0), keys >= ``high``, each key of [low, high)."""
    if not key.numel():
        return torch.zeros(4 + high - low, dtype=torch.int64, device=key.device)
    smallest, largest = torch.aminmax(key)
    above, inside = _at_least(key, high), _at_least(key, low)
    sums = [
        _at_least(key, 1).sum(dtype=torch.int32),
        (smallest < 0) | (largest >= _INFINITY),
        above.sum(dtype=torch.int32),
    ]
    whole = key.numel() // 8 * 8
    words = inside.sub_(above)[:whole].to(torch.int8).view(torch.int64).nonzero()[:, 0]  # 8 keys, one of them inside
    near = torch.cat([key[:whole].view(-1, 8).index_select(0, words).flatten(), key[whole:]])
    places = near.sub_(low).clamp_(-1, high - low).add_(1)  # first and last: not inside
    each = torch.bincount(places, minlength=high - low + 2)[1:-1]
    size = torch.full((), key.numel(), device=key.device)
    return torch.cat([torch.stack([size, *(one.long() for one in sums)]), each])


def _invalid(key: Tensor) -> Tensor:
    """How many keys are those of negative or infinite numbers, or of NaN."""
    return torch.count_nonzero(((key < 0) & (key != _MINUS_ZERO)) | (key >= _INFINITY))


def _at_least(key: Tensor, low: int) -> Tensor:
    """1 where a key is ``low`` or larger, else 0 (int32): ten times as fast on a CPU as a tensor of bool."""
    return torch.ge(key, low, out=torch.empty_like(key))


def _mask(score: Score, threshold: int, ties: int | None) -> PackedMask:
    """True above the threshold, and at it: everywhere, or at its first ``ties`` occurrences."""
    bits, num = [], 0
    for key in _keys([score]):
        chosen = _at_least(key, threshold).to(torch.bool)
        if ties is not None:
            at = (key == threshold).nonzero()[:, 0]
            chosen[at[ties:]] = False
            ties -= min(ties, at.numel())
        bits.append(pack(chosen))
        num += key.numel()
    return PackedMask(torch.cat(bits), num)


def _tie_quota(scores: Sequence[Score], found: _Found, shards: Shards) -> list[int]:
    """How many ties at the threshold each of this shard's tensors may keep, in coordinate order over all shards."""
    own = torch.stack([_total(torch.count_nonzero(key == found.key) for key in _keys([score])) for score in scores])
    in_order = shards.gather(own).t().reshape(-1)  # tensor by tensor, and in each the shards in order
    before = (in_order.cumsum(0) - in_order).view(own.numel(), -1)[:, shards.rank]
    quota: list[int] = (found.ties_wanted - before).clamp(min=0).minimum(own).tolist()
    return quota


def _keys(scores: Iterable[Score]) -> Iterator[Tensor]:
    return (chunk.view(torch.int32) for score in scores for chunk in score.split(packed.CHUNK))


def _total(counts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.Tensor.add_, counts)


def _value(key: int) -> float:
    return float(torch.tensor(key, dtype=torch.int32).view(torch.float32).item())
