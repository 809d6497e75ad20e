"""‖θ_T − θ_0‖₂ by layer and by kind of matrix: how much a training changed a model (MIFO section 2)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mifo_verl.inspect.parameters import KINDS, in_order, kind_of, layer_of
from mifo_verl.inspect.sources import Weights, common_names

Sums = dict[str, float]


def grouped(names: Iterable[str], measure: Callable[[str], Sums], what: str) -> dict[str, dict[str, Sums]]:
    """Sums of ``measure(name)`` over the tensors of every layer, of every kind of matrix, and of all."""
    found: dict[str, dict[str, Sums]] = {"by_layer": {}, "by_kind": {}, "total": {}}
    for name in tqdm(list(names), desc=what, leave=False):
        values = measure(name)
        for table, group in (("by_layer", layer_of(name)), ("by_kind", kind_of(name)), ("total", "all")):
            sums = found[table].setdefault(group, dict.fromkeys(values, 0.0))
            for key, value in values.items():
                sums[key] += value
    found["by_layer"] = {layer: found["by_layer"][layer] for layer in in_order(list(found["by_layer"]))}
    found["by_kind"] = {kind: found["by_kind"][kind] for kind in KINDS if kind in found["by_kind"]}
    return found


def update_norms(start: Weights, ends: dict[str, Weights]) -> dict[str, dict[str, dict[str, Any]]]:
    """``by_layer``, ``by_kind``, ``total``: of every group its coordinates, and of every end the norm of its update.

    ``<end>`` is the L2 norm of the update, ``<end>_relative`` the same over the norm of the start, ``<end>_moved`` the
    number of coordinates that differ; over a norm of 0 it is None. Raises ValueError where the models are not the same.
    """

    def measure(name: str) -> Sums:
        first = start.tensor(name).double()
        values = {"coordinates": float(first.numel()), "start": _square(first)}
        for label, end in ends.items():
            change = end.tensor(name).double() - first
            values |= {label: _square(change), f"{label}_moved": float((change != 0).sum())}
        return values

    tables: dict[str, dict[str, dict[str, Any]]] = grouped(common_names(start, *ends.values()), measure, "updates")
    for groups in tables.values():
        for sums in groups.values():
            size = math.sqrt(sums.pop("start"))
            for label in ends:
                sums[label] = math.sqrt(sums[label])
                sums[f"{label}_relative"] = sums[label] / size if size else None
    return tables


def _square(tensor: Tensor) -> float:
    return float(tensor.square().sum())
