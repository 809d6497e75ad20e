"""An RL step with demonstrations in its updates: they are staged on the ranks, and rollouts they replace are masked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from mifo_verl.loop.mixed import Mixed, cut
from mifo_verl.loop.streams import stable_seed
from mifo_verl.types import BufferEntry
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.staging import RL_WEIGHT

MASKED = ("response_mask", "loss_mask", "advantages")
"""Columns of a rollout that are 0 while it is out of the updates. verl's constants stay: it counts no masked row."""


@dataclass(frozen=True)
class Sizes:
    """How verl cuts a step into updates."""

    questions: int
    """Of an update (``ppo_mini_batch_size``)."""
    rollouts: int
    """Of a question."""
    epochs: int
    """Times that a step trains on each rollout."""
    seed: int


@dataclass(frozen=True)
class Trained:
    """What came of the demonstrations of one step."""

    loss: float
    """Mean over the updates that had some, not weighted."""
    uses: list[tuple[BufferEntry, int]]
    """Each use, in order, and how many of its tokens were kept."""


@contextmanager
def mixed_updates(
    actor: Actor, batch: KVBatchMeta, mixed: Mixed, sizes: Sizes, step: int, per_question: bool
) -> Iterator[list[Trained]]:
    """Around verl's update of a batch; behind it the list has what came of the demonstrations, if there were any."""
    trained: list[Trained] = []
    if mixed.is_rl:
        yield trained
        return
    batch.extra_info[RL_WEIGHT] = mixed.weights.rl
    num_updates = len(batch) // (sizes.questions * sizes.rollouts)
    parts = cut(mixed.entries, num_updates, sizes.epochs, sizes.seed, step)
    for part in parts:
        examples = [entry.example for entry in part]
        seeds = [stable_seed(sizes.seed, "mixed", step, example.prompt_id) for example in examples]
        actor.stage_sft(examples, seeds, mixed.weights.sft, sizes.questions if per_question else None)
    with masked(batch, mixed.without_rl):
        yield trained
    if parts:
        staged = actor.take_staged()
        kept = [number for update in staged for number in update.kept_tokens]
        uses = list(zip([entry for part in parts for entry in part], kept, strict=True))
        trained.append(Trained(fmean(update.loss for update in staged), uses))


@contextmanager
def masked(batch: KVBatchMeta, uids: frozenset[str]) -> Iterator[None]:
    """Rollouts of these questions count in no loss; behind it their columns are as before, for verl's metrics."""
    keys = [key for key in batch.keys if key.rsplit("_", 2)[0] in uids]
    if not keys:
        yield
        return
    kept: Any = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(MASKED))
    zeros = TensorDict({name: _zeros(kept[name]) for name in MASKED}, batch_size=len(keys))
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=zeros)
    yield
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=kept.select(*MASKED))


def _zeros(nested: Any) -> torch.Tensor:
    return torch.nested.nested_tensor_from_jagged(torch.zeros_like(nested.values()), nested.offsets())
