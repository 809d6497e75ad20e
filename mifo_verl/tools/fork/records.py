"""The records of an arm: the lines of its file, told apart by ``kind``."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct


class Line(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One line of the file."""


class Began(Line, frozen=True, kw_only=True, tag="began"):
    """The first line: of what the arm is a fork."""

    arm: str
    checkpoint: str
    overrides: list[str]
    key: Annotated[str, Meta(description="digest of the checkpoint, the data and all settings")]
    weights_sha256: Annotated[list[str], Meta(description="of every rank's shards, before the phase")]
    mask: Annotated[dict[str, Any] | None, Meta(description="the report of the mask; null if nothing is frozen")]


class Updated(Line, frozen=True, kw_only=True, tag="updated"):
    """One SFT update."""

    update: Annotated[int, Meta(description="from 1")]
    loss: float | None
    grad_norm: Annotated[float | None, Meta(description="null if it was not finite: the update was skipped")]
    kept_share: Annotated[float, Meta(description="response tokens in the loss, of all")]
    lr: float


class Measured(Line, frozen=True, kw_only=True, tag="measured"):
    """The policy after so many updates."""

    update: int
    own: Annotated[list[int], Meta(description="1 if the greedy answer is right, by question; the skill it had")]
    gained: Annotated[list[int], Meta(description="the same of the skill that is taught")]
    kl: Annotated[float, Meta(description="KL to the phase's start on its rollouts, mean over tokens, nats")]
    cross_entropy_rollouts: Annotated[float, Meta(description="of the rollouts of the phase's start, nats a token")]
    cross_entropy_demonstrations: Annotated[
        float | None, Meta(description="of the gained questions' own, nats a token")
    ]
    weight_change: Annotated[float, Meta(description="L2 norm of the change since the phase's start")]


class Ended(Line, frozen=True, kw_only=True, tag="ended"):
    """The last line."""

    frozen_drift: Annotated[float | None, Meta(description="largest change of a frozen value")]
    weights_sha256: Annotated[list[str], Meta(description="of every rank's shards, after the phase")]
    seconds: float


class Arm(Struct, frozen=True):
    """The file of an arm that is done."""

    began: Began
    updated: list[Updated]
    measured: list[Measured]
    ended: Ended


def read_arm(file: Path) -> Arm:
    """An arm that is done. Raises ValueError, naming the file, if it is none or not whole."""
    try:
        first, *between, last = file.read_bytes().splitlines()
        began, ended = msgspec.json.decode(first, type=Began), msgspec.json.decode(last, type=Ended)
        lines = [msgspec.json.decode(line, type=Updated | Measured) for line in between]
    except (msgspec.MsgspecError, ValueError) as error:
        why = f"is not the whole record of an arm ({error}); delete it to run the arm again"
        raise ValueError(f"{file} {why}") from None
    updated = [one for one in lines if isinstance(one, Updated)]
    return Arm(began, updated, [one for one in lines if isinstance(one, Measured)], ended)
