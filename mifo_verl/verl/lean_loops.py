"""What verl's agent loops do for every rollout, at less cost.

Rollouts go into TransferQueue together: what is put while another put is under way waits, and then goes in one, since a
put is four calls to other processes, for one rollout as for a hundred. A loop without settings is made without hydra.
"""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import hydra
import torch
import transfer_queue
from verl.experimental.agent_loop import agent_loop
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Put:
    """Rows that wait, each with its key and tag; without rows the tags alone."""

    partition_id: str
    keys: Sequence[str]
    rows: Sequence[Row]
    tags: Sequence[Row]
    is_done: asyncio.Future[None]

    @property
    def form(self) -> Hashable:
        """Puts of one form go together: the same columns, and tensors of one dimension may differ in length."""
        return self.partition_id, tuple((name, _form(value)) for row in self.rows[:1] for name, value in row.items())


def _form(value: Any) -> Hashable:
    return (value.dtype, value.shape if value.dim() != 1 else None) if isinstance(value, torch.Tensor) else None


class GroupedPuts:
    """TransferQueue as verl's agent loops know it."""

    def __init__(self) -> None:
        self._waiting: list[Put] = []
        self._putting: asyncio.Task[None] | None = None

    async def async_kv_put(self, key: str, partition_id: str, tag: Row) -> None:
        """Put the tag of a key."""
        await self.async_kv_batch_put([key], [], [tag], partition_id)

    async def async_kv_batch_put(
        self, keys: Sequence[str], fields: Sequence[Row], tags: Sequence[Row], partition_id: str
    ) -> None:
        """Put rows; returns when they are there. Raises what stopped them."""
        put = Put(partition_id, keys, fields, tags, asyncio.get_running_loop().create_future())
        self._waiting.append(put)
        if self._putting is None or self._putting.done():
            self._putting = asyncio.create_task(self._put_all())
        await put.is_done

    async def _put_all(self) -> None:
        while self._waiting:
            form = self._waiting[0].form
            together = [put for put in self._waiting if put.form == form]
            self._waiting = [put for put in self._waiting if put.form != form]
            await _settle(together)


async def _settle(together: Sequence[Put]) -> None:
    """Put them in one, or each by itself if that fails; say so to those that still wait."""
    failure = None
    try:
        await _put(together)
    except Exception as error:
        failure = error
    if failure is not None and len(together) > 1:
        for put in together:
            await _settle([put])
        return
    for put in together:
        if put.is_done.done():
            continue  # cancelled
        if failure is None:
            put.is_done.set_result(None)
        else:
            put.is_done.set_exception(failure)


async def _put(together: Sequence[Put]) -> None:
    rows = [row for put in together for row in put.rows]
    await transfer_queue.async_kv_batch_put(
        keys=[key for put in together for key in put.keys],
        partition_id=together[0].partition_id,
        fields=list_of_dict_to_tensordict(rows) if rows else None,
        tags=[tag for put in together for tag in put.tags],
    )


def make_loop(config: Row, **given: Any) -> Any:
    """The agent loop of a config, as ``hydra.utils.instantiate`` makes it, which takes 2 ms to merge what is given."""
    if set(config) == {"_target_"}:
        return hydra.utils.get_class(config["_target_"])(**given)
    return hydra.utils.instantiate(config=config, **given)


def make_loops_lean() -> None:
    """Let verl's agent loops of this process be made without hydra, and put their rollouts together."""
    agent_loop_tq.tq, agent_loop_tq.list_of_dict_to_tensordict = GroupedPuts(), list  # rows are joined by the put
    agent_loop.hydra = SimpleNamespace(utils=SimpleNamespace(instantiate=make_loop))
