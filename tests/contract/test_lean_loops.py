"""Rollouts that are put together arrive as they would alone; a loop made without hydra is the one that hydra makes."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from verl.experimental.agent_loop import agent_loop
from verl.trainer.ppo.v1 import agent_loop_tq

from mifo_verl.verl.lean_loops import GroupedPuts, make_loop, make_loops_lean


@pytest.fixture
def calls(monkeypatch):
    """The calls that reach TransferQueue; a key named ``bad`` stops its call."""
    made = []

    async def put(keys, partition_id, fields, tags):
        await asyncio.sleep(0)
        if "bad" in keys:
            raise RuntimeError("no storage")
        made.append((partition_id, keys, fields, tags))

    monkeypatch.setattr(transfer_queue, "async_kv_batch_put", put)
    return made


def row(*tokens, **others):
    return {"responses": torch.tensor(tokens), **others}


def put_all(*puts, **how):
    """Put (key, row, partition) at the same moment; what each raised or None."""

    async def together():
        queue = GroupedPuts()
        made = (queue.async_kv_batch_put([key], [one], [{"status": key}], partition) for key, one, partition in puts)
        return await asyncio.gather(*made, return_exceptions=True)

    return asyncio.run(together())


def test_rows_of_several_lengths_go_in_one_call_and_come_out_as_they_were(calls):
    assert put_all(("a", row(1, 2, uid="x"), "train"), ("b", row(3, uid="y"), "train")) == [None, None]
    [(partition, keys, fields, tags)] = calls
    assert (partition, keys, tags) == ("train", ["a", "b"], [{"status": "a"}, {"status": "b"}])
    assert [one.tolist() for one in fields["responses"].unbind()] == [[1, 2], [3]]
    assert list(fields["uid"]) == ["x", "y"]


@pytest.mark.parametrize(
    "other",
    [
        ("b", row(3), "val"),
        ("b", row(3, extra=1), "train"),
        ("b", {"responses": torch.tensor([3], dtype=torch.int32)}, "train"),
        ("b", {"responses": torch.zeros(4, 1, dtype=torch.int64)}, "train"),
    ],
    ids=["partition", "columns", "dtype", "dimensions"],
)
def test_rows_that_do_not_fit_go_by_themselves(calls, other):
    put_all(("a", row(1), "train"), other, ("c", row(5, 6), "train"))
    assert [keys for _, keys, _, _ in calls] == [["a", "c"], ["b"]]


def test_what_comes_while_a_put_is_under_way_goes_with_the_next(calls):
    async def late():
        queue = GroupedPuts()
        first = asyncio.create_task(queue.async_kv_batch_put(["a"], [row(1)], [{}], "train"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(
            first,
            *(queue.async_kv_batch_put([key], [row(1)], [{}], "train") for key in "bc"),
            queue.async_kv_put("q", "train", {}),
        )

    asyncio.run(late())
    assert [(keys, fields is None) for _, keys, fields, _ in calls] == [
        (["a"], False),
        (["b", "c"], False),
        (["q"], True),
    ]


def test_a_put_that_fails_is_told_alone_and_those_that_went_with_it_go_by_themselves(calls):
    told = put_all(("a", row(1), "train"), ("bad", row(2), "train"), ("c", row(3), "val"))
    assert [str(one) for one in told] == ["None", "no storage", "None"]
    assert [keys for _, keys, _, _ in calls] == [["a"], ["c"]]


def test_one_that_is_cancelled_keeps_no_other_waiting(calls):
    async def cancelled():
        queue = GroupedPuts()
        first, second = (asyncio.create_task(queue.async_kv_batch_put([key], [row(1)], [{}], "train")) for key in "ab")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, timeout=5)
        await asyncio.wait_for(queue.async_kv_batch_put(["c"], [row(1)], [{}], "train"), timeout=5)

    asyncio.run(cancelled())
    assert [keys for _, keys, _, _ in calls] == [["a", "b"], ["c"]]


def test_a_row_that_cannot_be_joined_is_told_and_the_next_put_still_goes(calls):
    async def twice():
        queue = GroupedPuts()
        rows = [row(1), {"another": 1}]
        with pytest.raises(KeyError):
            await queue.async_kv_batch_put(["a", "b"], rows, [{}, {}], "train")
        await queue.async_kv_batch_put(["c"], [row(2)], [{}], "train")

    asyncio.run(twice())
    assert [keys for _, keys, _, _ in calls] == [["c"]]


@pytest.fixture
def lean(monkeypatch):
    for module, name in ((agent_loop_tq, "tq"), (agent_loop_tq, "list_of_dict_to_tensordict"), (agent_loop, "hydra")):
        monkeypatch.setattr(module, name, getattr(module, name))
    make_loops_lean()


def test_verls_loops_put_by_the_two_names_that_are_taken(calls, lean):
    worker = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class
    source = inspect.getsource(worker._agent_loop_postprocess)
    assert "await tq.async_kv_batch_put(" in source and "fields=list_of_dict_to_tensordict(fields)," in source
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"n": 0}}})
    asyncio.run(worker._run_prompt(SimpleNamespace(config=config), {"uid": "q"}, {}, {"validate": False}))
    assert [(keys, tags) for _, keys, _, tags in calls] == [
        (["q"], [{"status": "running"}]),
        (["q"], [{"status": "finished"}]),
    ]


class Loop:
    def __init__(self, tokenizer, turns=1):
        self.tokenizer = tokenizer
        self.turns = turns

    async def run(self, sampling, raw_prompt):
        return self.tokenizer, self.turns, sampling, raw_prompt


@pytest.mark.parametrize(("own", "turns"), [({}, 1), ({"turns": 5}, 5)])
def test_a_loop_has_what_it_is_given_and_settings_of_its_own(own, turns):
    tokenizer = object()
    made = make_loop({"_target_": f"{__name__}.Loop", **own}, tokenizer=tokenizer)
    assert type(made).__name__ == "Loop" and made.tokenizer is tokenizer and made.turns == turns


def test_verl_makes_its_loops_by_the_name_that_is_taken(lean):
    assert "agent_loop = hydra.utils.instantiate(" in inspect.getsource(agent_loop.AgentLoopWorker._run_agent_loop)
    assert inspect.getsource(agent_loop).count("= hydra.") == 1
