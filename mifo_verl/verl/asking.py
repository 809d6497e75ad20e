"""Prompts asked and answers judged on the way of verl's validation: rollout servers, agent loops, reward workers.

verl's own ``_validate`` gives accuracies alone; the probes need the tokens and the verdict of every answer too.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from mifo_verl.data.demonstrations import TARGET
from mifo_verl.loop.inputs import Row
from mifo_verl.loop.state import Answer
from mifo_verl.method.accuracy import count_correct
from mifo_verl.probes.probes import Asked
from mifo_verl.verl.demonstrations import correctness
from mifo_verl.verl.replay import key_order


def ask(trainer: PPOTrainer, rows: Sequence[Row]) -> list[Asked]:
    """The answers of the rollout servers' policy to every row, in the order of the rows."""
    if not rows:
        return []
    each = int(trainer.config.actor_rollout_ref.rollout.val_kwargs.n)
    call = uuid.uuid4().hex  # verl's queue has seen every uid once at most
    uids = [f"{call}{place:08d}" for place in range(len(rows))]
    batch = _submit(trainer, rows, uids)
    try:
        answers = _read(_last_of_each_session(batch))
    finally:
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
    return [
        Asked(str(row.get("data_source", "unknown")), each, answers.get(uid, []))
        for row, uid in zip(rows, uids, strict=True)
    ]


def _submit(trainer: PPOTrainer, rows: Sequence[Row], uids: list[str]) -> KVBatchMeta:
    columns = set.intersection(*map(set, rows)) - set(TARGET)  # training and validation rows may differ
    prompts = tu.get_tensordict(collate_fn([{key: row[key] for key in sorted(columns)} for row in rows]))
    tu.assign_non_tensor_stack(prompts, "uid", uids)
    tu.assign_non_tensor_data(prompts, "global_steps", trainer.global_steps)
    tu.assign_non_tensor_data(prompts, "validate", True)
    tags = [{"is_prompt": True, "status": "pending", "global_steps": trainer.global_steps} for _ in uids]
    tq.kv_batch_put(keys=uids, partition_id="val", tags=tags)
    trainer.agent_loop_manager.generate_sequences(prompts)
    batch, _ = trainer.replay_buffer.sample(global_steps=trainer.global_steps, partition_id="val", batch_size=len(uids))
    if trainer.reward_loop_manager.reward_loop_worker_handles is None:  # a reward model on the same devices
        trainer.checkpoint_manager.sleep_replicas()
        batch = trainer._compute_reward_colocate(batch)
        trainer.checkpoint_manager.update_weights()
    return batch


def _last_of_each_session(batch: KVBatchMeta) -> KVBatchMeta:
    """An agent loop may put out several trajectories; the last is the answer."""
    last: dict[tuple[str, int], str] = {}
    for key in sorted(batch.keys, key=key_order):
        uid, session, _ = key_order(key)
        last[uid, session] = key
    return batch.select_keys(list(last.values()))


def _read(batch: KVBatchMeta) -> dict[str, list[Answer]]:
    fields = ["prompts", "responses", "extra_fields"]
    data: Any = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    found: dict[str, list[Answer]] = {}
    columns = (batch.keys, data["prompts"].unbind(), data["responses"].unbind(), data["extra_fields"])
    for key, prompt, response, extra in zip(*columns, strict=True):
        ((num_correct, _),) = count_correct([(key, correctness(extra), False)]).values()
        answer = Answer(prompt.tolist(), response.tolist(), num_correct == 1)
        found.setdefault(key_order(key)[0], []).append(answer)
    return found
