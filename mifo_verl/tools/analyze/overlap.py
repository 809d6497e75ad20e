"""Where two updates changed the weights: the overlap of their supports, against chance."""

from typing import Any

import torch

from mifo_verl.tools.analyze.updates import Sums, grouped
from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.inspect.sources import Weights, common_names


def support_overlap(
    first: tuple[Weights, Weights], second: tuple[Weights, Weights], dtype: torch.dtype
) -> dict[str, dict[str, dict[str, Any]]]:
    """Of every layer, kind and of all: coordinates that each update changed, that both did, Jaccard and chance.

    An update is (before, after). A coordinate is changed where its values, rounded to ``dtype``, differ: bfloat16 shows
    what a rollout sees, float32 every trace of an optimizer.
    """

    def measure(name: str) -> Sums:
        (before, after), (before_two, after_two) = first, second
        one = before.tensor(name).to(dtype) != after.tensor(name).to(dtype)
        two = before_two.tensor(name).to(dtype) != after_two.tensor(name).to(dtype)
        counts = {"first": one.sum(), "second": two.sum(), "both": (one & two).sum()}
        return {"coordinates": float(one.numel())} | {key: float(value) for key, value in counts.items()}

    tables: dict[str, dict[str, dict[str, Any]]] = grouped(common_names(*first, *second), measure, "overlap")
    for groups in tables.values():
        for sums in groups.values():
            size, one, two, both = (int(sums[name]) for name in ("coordinates", "first", "second", "both"))
            sums |= {"jaccard": jaccard(one, two, both), "chance": chance_jaccard([size], [one], [two])}
    return tables
