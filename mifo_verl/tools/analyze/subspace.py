"""How far a training turns the singular vectors of a model's matrices (RL Heals): principal angles, singular values."""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mifo_verl.probes.parameters import kind_of, layer_of
from mifo_verl.tools.inspect.sources import Weights, common_names


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The angles (degrees, ascending) between the column spaces of two matrices with orthonormal columns.

    Small angles come from the sine, which keeps digits that the cosine of a small angle loses.
    """
    product = first.mT @ second
    cosine = torch.linalg.svdvals(product).clamp(0, 1)
    sine = torch.linalg.svdvals(second - first @ product).flip(0).clamp(0, 1)
    angle = torch.where(cosine.square() > 0.5, torch.asin(sine[: cosine.numel()]), torch.acos(cosine))
    return torch.rad2deg(angle)


def rotation(start: Tensor, end: Tensor, rank: int) -> dict[str, float]:
    """Angles between the spaces of the leading ``rank`` left and right singular vectors, and the change of the values.

    ``values`` is the norm of the change of all singular values over their norm at the start.
    """
    (left, values, right), (left_two, values_two, right_two) = (
        torch.linalg.svd(matrix.double(), full_matrices=False) for matrix in (start, end)
    )
    rank = min(rank, values.numel())
    own = principal_angles(left[:, :rank], left_two[:, :rank])
    other = principal_angles(right[:rank].mT, right_two[:rank].mT)
    return {
        "left_mean": float(own.mean()),
        "left_max": float(own.max()),
        "right_mean": float(other.mean()),
        "right_max": float(other.max()),
        "values": float((values_two - values).norm() / values.norm()),
    }


def subspace(start: Weights, end: Weights, rank: int, device: str = "cpu") -> list[dict[str, Any]]:
    """One row a matrix, in the model's order: its name, layer, kind and ``rotation``. Vectors are left out."""
    rows = []
    for name in tqdm(common_names(start, end), desc="subspace", leave=False):
        first = start.tensor(name)
        if first.ndim == 2:
            turned = rotation(first.to(device), end.tensor(name).to(device), rank)
            rows.append({"name": name, "layer": layer_of(name), "kind": kind_of(name)} | turned)
    return rows
