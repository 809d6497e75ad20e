"""An RL step with demonstrations in its updates: they are staged on the ranks, and rollouts they replace are masked."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from mifo_verl.loop.loop import Loop
from mifo_verl.loop.mixed import Trained, cut
from mifo_verl.loop.streams import stable_seed
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.replay import key_order
from mifo_verl.verl.rl_loss import CORRECT
from mifo_verl.verl.staging import RL_WEIGHT

MASKED = ("response_mask", "loss_mask", "advantages")
"""Columns of a rollout that are 0 while it is out of the updates. verl's constants stay: it counts no masked row."""


@contextmanager
def mixed_updates(actor: Actor, batch: KVBatchMeta, loop: Loop, config: DictConfig) -> Iterator[None]:
    """Around verl's update of a batch; behind it the loop has what came of the demonstrations in it."""
    mixed = loop.mix({key_order(key)[0] for key in batch.keys})
    if mixed.is_rl:
        yield
        return
    settings, seed, step = config.actor_rollout_ref.actor, int(config.seed), loop.state.step
    questions = int(settings.ppo_mini_batch_size)
    num_updates = len(batch) // (questions * int(config.actor_rollout_ref.rollout.n))
    parts = cut(mixed.entries, num_updates, int(settings.ppo_epochs), seed, step)
    batch.extra_info[RL_WEIGHT] = mixed.weights.rl
    for part in parts:
        examples = [entry.example for entry in part]
        seeds = [stable_seed(seed, "mixed", step, example.prompt_id) for example in examples]
        denominator = questions if mixed.per_question else None
        actor.stage_sft(examples, seeds, loop.progress.share, mixed.weights.sft, denominator)
    with masked(batch, mixed.without_rl):
        yield
    if parts:
        staged = actor.take_staged()
        kept = [number for update in staged for number in update.kept_tokens]
        uses = list(zip([entry for part in parts for entry in part], kept, strict=True))
        loop.trained = Trained(fmean(update.loss for update in staged), uses)


def mark_correct(batch: KVBatchMeta, loop: Loop) -> None:
    """Give every rollout of a batch the column ``CORRECT``; padding, which is in no loss, has one too.

    The workers are handed the fields that the batch names, so it names this one too.
    """
    correct = [int(loop.correct.get(key_order(key)[:2], False)) for key in batch.keys]
    fields = TensorDict({CORRECT: torch.tensor(correct)}, batch_size=len(batch.keys))
    batch.fields = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields).fields


@contextmanager
def masked(batch: KVBatchMeta, uids: frozenset[str]) -> Iterator[None]:
    """Rollouts of these questions count in no loss; behind it their columns are as before, for verl's metrics."""
    keys = [key for key in batch.keys if key_order(key)[0] in uids]
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
