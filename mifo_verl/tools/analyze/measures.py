"""What a training changed of a model, by layer and by kind of matrix, one tensor in memory at a time."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from mifo_verl.probes.parameters import KINDS, in_order, kind_of, layer_of
from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.inspect.sources import Weights, common_names

Groups = dict[str, dict[str, dict[str, Any]]]
"""``by_layer``, ``by_kind`` and ``total``: the numbers of every group."""


def _grouped(names: list[str], measure: Callable[[str], dict[str, float]], what: str) -> Groups:
    """Sums of ``measure(name)`` over the tensors of every layer, of every kind of matrix, and of all."""
    frame = pd.DataFrame([measure(name) for name in tqdm(names, desc=what, leave=False)])
    layers, kinds = [layer_of(name) for name in names], [kind_of(name) for name in names]
    order = {"by_layer": (layers, in_order(sorted(set(layers)))), "by_kind": (kinds, [k for k in KINDS if k in kinds])}
    order["total"] = (["all"] * len(names), ["all"])
    return {by: frame.groupby(keys).sum().loc[groups].to_dict("index") for by, (keys, groups) in order.items()}


def update_norms(start: Weights, ends: dict[str, Weights]) -> Groups:
    """‖θ_T − θ_0‖₂ (MIFO section 2): of every group its coordinates, and of every end the norm of its update.

    ``ends`` has for every end the L2 ``norm`` of the update, ``relative`` the same over the norm of the start (None
    over 0), and ``moved``, the coordinates that differ. Raises ValueError if the models are not the same.
    """

    def measure(name: str) -> dict[str, float]:
        first = start.tensor(name).double()
        values = {"coordinates": float(first.numel()), "start": float(first.square().sum())}
        for number, end in enumerate(ends.values()):
            change = end.tensor(name).double() - first
            values |= {f"norm {number}": float(change.square().sum()), f"moved {number}": float((change != 0).sum())}
        return values

    def of_group(sums: dict[str, Any]) -> dict[str, Any]:
        size, found = sums["start"] ** 0.5, {}
        for number, label in enumerate(ends):
            norm = sums[f"norm {number}"] ** 0.5
            found[label] = {"norm": norm, "relative": norm / size if size else None, "moved": sums[f"moved {number}"]}
        return {"coordinates": sums["coordinates"], "ends": found}

    groups = _grouped(common_names(start, *ends.values()), measure, "updates")
    return {by: {group: of_group(sums) for group, sums in own.items()} for by, own in groups.items()}


def support_overlap(first: tuple[Weights, Weights], second: tuple[Weights, Weights], dtype: torch.dtype) -> Groups:
    """Of every group: coordinates that each update changed, that both did, their Jaccard overlap, and that of chance.

    An update is (before, after). A coordinate is changed if its values, rounded to ``dtype``, differ: bfloat16 shows
    what a rollout sees, float32 every trace of an optimizer.
    """

    def measure(name: str) -> dict[str, float]:
        one, two = (before.tensor(name).to(dtype) != after.tensor(name).to(dtype) for before, after in (first, second))
        counts = {"first": one, "second": two, "both": one & two}
        return {"coordinates": float(one.numel())} | {name: float(place.sum()) for name, place in counts.items()}

    found = _grouped(common_names(*first, *second), measure, "overlap")
    for sums in (sums for groups in found.values() for sums in groups.values()):
        size, one, two, both = (int(sums[name]) for name in ("coordinates", "first", "second", "both"))
        sums |= {"jaccard": jaccard(one, two, both), "chance": chance_jaccard([size], [one], [two])}
    return found


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The angles (degrees, ascending) between the column spaces of two matrices with orthonormal columns.

    Small angles come from the sine, which keeps digits that the cosine of a small angle loses.
    """
    product = first.mT @ second
    cosine = torch.linalg.svdvals(product).clamp(0, 1)
    sine = torch.linalg.svdvals(second - first @ product).flip(0).clamp(0, 1)
    return torch.rad2deg(torch.where(cosine.square() > 0.5, torch.asin(sine[: cosine.numel()]), torch.acos(cosine)))


def rotation(start: Tensor, end: Tensor, rank: int) -> dict[str, float]:
    """How far a training turns the singular vectors of a matrix (RL Heals): angles between the spaces of the leading
    ``rank`` left and right ones, and ``values``, the norm of the change of all singular values over their norm.
    """
    before, after = (torch.linalg.svd(matrix.double(), full_matrices=False) for matrix in (start, end))
    rank = min(rank, before.S.numel())
    left = principal_angles(before.U[:, :rank], after.U[:, :rank])
    right = principal_angles(before.Vh[:rank].mT, after.Vh[:rank].mT)
    found = {"left_mean": left.mean(), "left_max": left.max(), "right_mean": right.mean(), "right_max": right.max()}
    found["values"] = (after.S - before.S).norm() / before.S.norm()
    return {name: float(value) for name, value in found.items()}


def subspace(start: Weights, end: Weights, rank: int, device: str = "cpu") -> list[dict[str, Any]]:
    """One row a matrix, in the model's order: its name, layer, kind and ``rotation``. Vectors are left out."""
    rows = []
    for name in tqdm(common_names(start, end), desc="subspace", leave=False):
        first = start.tensor(name)
        if first.ndim == 2:
            turned = rotation(first.to(device), end.tensor(name).to(device), rank)
            rows.append({"name": name, "layer": layer_of(name), "kind": kind_of(name)} | turned)
    return rows
