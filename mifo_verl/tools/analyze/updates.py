"""‖θ_T − θ_0‖₂ by layer and by kind of matrix: how much a training changed a model (MIFO section 2)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mifo_verl.probes.parameters import KINDS, in_order, kind_of, layer_of
from mifo_verl.tools.inspect.sources import Weights, common_names

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

    ``ends`` has for every end the L2 ``norm`` of the update, ``relative`` the same over the norm of the start (None
    over 0), and ``moved``, the coordinates that differ. Raises ValueError where the models are not the same.
    """

    def measure(name: str) -> Sums:
        first = start.tensor(name).double()
        values = {"coordinates": float(first.numel()), "start": _square(first)}
        for number, end in enumerate(ends.values()):
            change = end.tensor(name).double() - first
            values |= {f"norm {number}": _square(change), f"moved {number}": float((change != 0).sum())}
        return values

    def table_of(sums: Sums) -> dict[str, Any]:
        size, found = math.sqrt(sums["start"]), {}
        for number, label in enumerate(ends):
            norm = math.sqrt(sums[f"norm {number}"])
            moved = sums[f"moved {number}"]
            found[label] = {"norm": norm, "relative": norm / size if size else None, "moved": moved}
        return {"coordinates": sums["coordinates"], "ends": found}

    tables = grouped(common_names(start, *ends.values()), measure, "updates")
    return {by: {group: table_of(sums) for group, sums in groups.items()} for by, groups in tables.items()}


def _square(tensor: Tensor) -> float:
    return float(tensor.square().sum())
