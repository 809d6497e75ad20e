"""The bottom share: the coordinates of the smallest importance, a score of 0 included. A control, no part of MIFO.

It is the top share of the scores upside down, exact as that one: positive float32 numbers are ordered like their bits,
so the largest finite number's bits minus a score's are those of a number in the opposite order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mifo_verl.method import packed
from mifo_verl.method.top_share import OneShard, Score, Selection, Shards
from mifo_verl.types import Share

_LARGEST = 0x7F7FFFFF
"""The bits of the largest finite float32."""


def upside_down(score_N: Tensor) -> Tensor:
    """Float32 scores in the opposite order; what is negative or not finite stays so. Its own inverse."""
    return (_LARGEST - (score_N + 0.0).view(torch.int32)).view(torch.float32)  # + 0.0 makes 0 of -0


@dataclass(frozen=True)
class _UpsideDown:
    score: Score

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        return map(upside_down, self.score.split(split_size))


def select_bottom_share(
    select: Callable[[Sequence[Score], Share, Shards | None], Selection],
    scores: Sequence[Score],
    share: Share,
    shards: Shards | None = None,
) -> Selection:
    """What ``select``, the rule of a top share, selects of the smallest scores; ``threshold`` is the largest of them.

    Raises InvalidScores where a score is negative or not finite, on every shard.
    """
    found = select([_UpsideDown(score) for score in scores], share, shards)
    positive = sum(torch.count_nonzero(part) for score in scores for part in score.split(packed.CHUNK))
    num_positive = int((shards or OneShard()).sum(torch.as_tensor(positive).reshape(1)))
    threshold = float(upside_down(torch.tensor(found.threshold))) if found.num_frozen else found.threshold
    return replace(found, num_positive=num_positive, threshold=threshold)
