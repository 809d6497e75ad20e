"""verl's replay buffer in an order that does not depend on which rollout finished first."""

from collections.abc import Callable, Sequence
from typing import Any

import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from mifo_verl.loop.inputs import Rollout, Row
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.verl.demonstrations import correctness, is_fallback
from mifo_verl.verl.rl_loss import PREFIX

POLL_SECONDS = 0.05
NO_ROLLOUTS = "no_rollouts"
"""The one key of the batch of a step that made no rollouts."""


def key_order(key: str) -> tuple[str, int, int]:
    """Sort key of a trajectory key ``{uid}_{session}_{index}``."""
    uid, session, index = key.rsplit("_", 2)
    return uid, int(session), int(index)


class OrderedReplayBuffer(ReplayBuffer):
    """Prompts by step and uid, trajectories by session; groups that a filter evicts are shown before they go.

    ``settle`` waits until no rollout is in flight before groups are filtered, so that dynamic sampling (DAPO) refills
    the same number of prompts in every run; without it, refills overlap with generation.
    """

    def __init__(
        self,
        built: ReplayBuffer,
        settle: bool,
        on_evict: Callable[[KVBatchMeta], None],
        on_poll: Callable[[], None],
        watchdog: Watchdog,
    ) -> None:
        self.__dict__.update(built.__dict__)
        self.poll_interval = POLL_SECONDS
        self._settle = settle
        self.on_evict = on_evict
        self._on_poll = on_poll
        self._watchdog = watchdog
        self._partition = "train"
        self.discarded_rollouts = 0
        """Training rollouts that were made and then filtered, or were surplus of a refill; the trainer sets it to 0."""

    def waiting_for(self) -> str:
        """The training prompts whose rollouts are not there yet, in words; empty where there are none."""
        uids = sorted({*self.pending_keys["train"], *self.running_keys["train"]})
        more = f" and {len(uids) - 5} more" if len(uids) > 5 else ""
        return f"{len(uids)} prompts: {', '.join(uids[:5])}{more}" if uids else ""

    def done(self) -> str:
        """How many prompts have their rollouts, of all that are asked now."""
        name = self._partition
        done, left = (
            sum(len(getattr(self, f"{status}_keys")[name]) for status in pair)
            for pair in (("finished", "failure"), ("pending", "running"))
        )
        return f"{done} of {done + left} prompts"

    def sample(self, *args: Any, partition_id: str, **kwargs: Any) -> Any:
        """verl's sample, which waits for the rollouts."""
        self._partition, kwargs["partition_id"] = partition_id, partition_id
        with self._watchdog.stage("rollout"):
            return super().sample(*args, **kwargs)

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> tuple[set, set, set, Any]:
        self._on_poll()
        reasons = super()._terminal_eviction_reasons(global_steps, partition_id)
        in_flight = self.pending_keys[partition_id] or self.running_keys[partition_id]
        if self._settle and in_flight and any(reasons[:3]):
            # nothing is evicted yet, and nothing may be sampled before it is: hide the groups for this poll
            hidden = reasons[0] | reasons[1] | reasons[2]
            self.finished_keys[partition_id] -= hidden
            self.failure_keys[partition_id] -= hidden
            return set(), set(), set(), type(reasons[3])()
        return reasons

    def _evict_terminal_groups(
        self, global_steps: int, partition_id: str, eviction_reasons: tuple[set, set, set, Any]
    ) -> tuple[set[str], int, int, dict]:
        filtered = eviction_reasons[1]
        if filtered:
            trajectories = self.partitions[partition_id]
            keys = sorted((key for key in trajectories if key.split("_")[0] in filtered), key=key_order)
            self.on_evict(KVBatchMeta(partition_id=partition_id, keys=keys, tags=[trajectories[key] for key in keys]))
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        if partition_id == "train":
            self.discarded_rollouts += sum(key.split("_")[0] in uids for key in self.partitions[partition_id])
        super()._clear_groups(partition_id, uids)

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict], dict[str, int]]:
        steps = dict(self.prompt_global_steps[partition_id])
        ordered = sorted(sampleable_keys, key=lambda uid: (steps.get(uid, 0), uid))
        return ordered[:batch_size], dict(self.partitions[partition_id]), steps

    def _materialize_batch(
        self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict[str, dict]
    ) -> KVBatchMeta:
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)
        batch.reorder(sorted(range(len(batch.keys)), key=lambda place: key_order(batch.keys[place])))
        return batch


def rows_of(batch: TensorDict) -> list[Row]:
    """The rows of a batch of prompts as plain dicts."""
    columns = {key: list(batch[key]) for key in batch.keys() if isinstance(batch[key], list)}
    return [{key: value[place] for key, value in columns.items()} for place in range(len(batch))]


def rollouts_of(batch: KVBatchMeta) -> tuple[list[Rollout], dict[str, list[int]]]:
    """Finished trajectories as the loop counts them, and the tokens of their prompts by uid."""
    fields = ["prompts", "extra_fields"]
    data: Any = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    rollouts: list[Rollout] = []
    prompts: dict[str, list[int]] = {}
    columns = (batch.keys, batch.tags, data["prompts"].unbind(), data["extra_fields"])
    for key, tag, prompt, extra in zip(*columns, strict=True):
        uid, session, index = key_order(key)
        is_padding, prefix = bool(tag.get("is_padding", False)), int(extra.get(PREFIX, 0))
        rollouts.append(Rollout(uid, session, index, correctness(extra), is_padding, prefix, is_fallback(extra)))
        if uid not in prompts or index == 0:  # a later output of a session has more in front of it
            prompts[uid] = prompt.tolist()
    return rollouts, prompts


def tokens_of(partition: str, rollouts: Sequence[Rollout]) -> list[tuple[list[int], list[int]] | None]:
    """The tokens of prompt and response of each trajectory; None if a tool or another has written into a response."""
    if not rollouts:
        return []
    keys = [f"{one.uid}_{one.session}_{one.index}" for one in rollouts]
    fields = ["prompts", "responses", "response_mask"]
    data: Any = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
    columns = zip(*(data[name].unbind() for name in fields), strict=True)
    return [(prompt.tolist(), response.tolist()) if mask.all() else None for prompt, response, mask in columns]


def without_rollouts(servers: Any) -> KVBatchMeta:
    """What a step without rollouts hands to verl, which clears its batch from the queue and takes no empty one.

    ``servers`` manages the rollout servers (verl's ``checkpoint_manager``): no rollout puts them to sleep.
    """
    servers.sleep_replicas()
    tq.kv_put(key=NO_ROLLOUTS, partition_id="train", tag={"is_padding": True})
    return KVBatchMeta(partition_id="train", keys=[NO_ROLLOUTS], tags=[{"is_padding": True}])


def has_rollouts(batch: KVBatchMeta) -> bool:
    """Whether the batch of a step is more than ``NO_ROLLOUTS``."""
    return batch.keys != [NO_ROLLOUTS]
