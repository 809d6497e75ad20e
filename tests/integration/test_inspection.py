"""Masks and updates counted on two FSDP2 ranks, and read back from the checkpoint of these ranks."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mifo_verl.probes.parameters import layer_of
from mifo_verl.tools.analyze.measures import update_norms
from mifo_verl.tools.inspect.checkpoint import MaskRule, checkpoint_mask
from mifo_verl.tools.inspect.sources import open_weights
from tests.integration.engine_ranks import examples, full, make_engine, run_on_ranks, update

MOVING = {"actor_rollout_ref.actor.optim.lr": 1e-3, "mifo.sft.lr": 2e-4}


def _interval(engine: Any, number: int) -> dict[str, Any]:
    """Updates like RL's and an SFT phase, inspected; with the weights around both, and the masks, gathered."""
    interval = engine.interval
    engine.interval.begin()
    start = full(interval.model.weights())
    update(engine, examples(8))
    middle = full(interval.model.weights())
    with tempfile.TemporaryDirectory() as own:
        folder = [own]
        dist.broadcast_object_list(folder)
        seen = _checkpoint(engine, Path(folder[0]) / "global_step_1")
        dist.barrier()
    engine.begin_sft(number)
    frozen = full(interval.constraint.frozen)
    update(engine, examples(6))
    table = interval.inspect_sft()
    engine.end_sft()
    names = [where.name for where in interval.model.slices]
    weights = {"start": start, "middle": middle, "end": full(interval.model.weights())}
    return {"names": names, "frozen": frozen, "table": table, "seen": seen} | weights


def _checkpoint(engine: Any, folder: Path) -> dict[str, Any]:
    """What a checkpoint of this moment says, read on rank 0 by what never saw the engine."""
    (folder / "actor").mkdir(parents=True, exist_ok=True)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.save(engine.module.state_dict(), folder / "actor" / f"model_world_size_{ranks}_rank_{rank}.pt")
    huggingface = folder / "actor" / "huggingface"
    huggingface.mkdir(exist_ok=True)
    (huggingface / "config.json").write_text('{"tie_word_embeddings": true}')
    engine.save_interval(folder / "mifo")
    dist.barrier()
    if rank:
        return {}
    weights, begin = open_weights(str(folder)), open_weights(f"{folder}@start")
    rule = MaskRule(engine.mifo.constraint, engine.mifo.importance, "")
    return {
        "mask": checkpoint_mask(folder, rule),
        "per_tensor": checkpoint_mask(folder, replace(rule, constraint=replace(rule.constraint, scope="per_tensor"))),
        "weights": [weights.tensor(name).flatten() for name in weights.names()],
        "start": [begin.tensor(name).flatten() for name in begin.names()],
        "names": weights.names(),
        "norm": update_norms(begin, {"now": weights})["total"]["all"]["ends"]["now"]["norm"],
    }


def _two_intervals(settings: dict[str, Any]) -> list[dict[str, Any]]:
    engine = make_engine(MOVING | settings)
    return [_interval(engine, number) for number in (1, 2)]


@pytest.fixture(scope="module")
def on_two_ranks() -> dict[str, list[dict[str, Any]]]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cases = {"history": {}, "dagger": {"mifo.constraint.history": 0}}
    return dict(zip(cases, run_on_ranks(_two_intervals, 2, [(settings,) for settings in cases.values()]), strict=True))


def by_layer(names: list[str], tensors: list[torch.Tensor], layer: str) -> torch.Tensor:
    return torch.cat([tensor for name, tensor in zip(names, tensors, strict=True) if layer_of(name) == layer])


@pytest.mark.parametrize("case", ["history", "dagger"])
def test_the_table_is_that_of_the_whole_model(on_two_ranks: dict[str, list[dict[str, Any]]], case: str):
    first, second = on_two_ranks[case]
    for found, previous in ((first, None), (second, first["frozen"])):
        table, names = found["table"]["by_layer"], found["names"]
        assert table["layer"] == ["embedding", "0", "1", "2", "3", "norm"]
        for row, layer in enumerate(table["layer"]):
            start, middle, end = (by_layer(names, found[part], layer) for part in ("start", "middle", "end"))
            frozen = by_layer(names, found["frozen"], layer)
            rl, sft = start != middle, middle != end
            assert table["coordinates"][row] == start.numel()
            assert table["frozen"][row] == int(frozen.sum())
            assert table["rl_moved"][row] == int(rl.sum())
            assert table["sft_moved"][row] == int(sft.sum()) > 0 or layer == "norm"
            assert table["both_moved"][row] == int((rl & sft).sum())
            assert table["rl_visible"][row] == int((start.bfloat16() != middle.bfloat16()).sum())
            visible = start.bfloat16() != middle.bfloat16()
            assert table["frozen_rl_visible"][row] == int((visible & frozen).sum())
            assert table["rl_norm"][row] == pytest.approx(float((middle - start).double().norm()))
            assert table["sft_norm"][row] == pytest.approx(float((end - middle).double().norm()))
            if previous is not None:
                before = by_layer(names, previous, layer)
                assert table["previous"][row] == int(before.sum())
                assert table["frozen_and_previous"][row] == int((before & frozen).sum())
        assert sum(table["frozen"]) == sum(table["coordinates"]) // 2
    assert sum(first["table"]["by_layer"]["previous"]) == 0


def test_a_checkpoint_holds_the_weights_and_their_start(on_two_ranks: dict[str, list[dict[str, Any]]]):
    for found in on_two_ranks["history"]:
        seen = found["seen"]
        assert seen["names"] == found["names"]
        for saved, own in ((seen["weights"], found["middle"]), (seen["start"], found["start"])):
            assert all(torch.equal(one, other) for one, other in zip(saved, own, strict=True))
        change = torch.cat(found["middle"]).double() - torch.cat(found["start"]).double()
        assert seen["norm"] == pytest.approx(float(change.norm()))


@pytest.mark.parametrize("case", ["history", "dagger"])
def test_a_checkpoint_tells_the_mask_that_the_sft_phase_then_froze_and_the_last_one(
    on_two_ranks: dict[str, list[dict[str, Any]]], case: str
):
    names = ["coordinates", "frozen", "zero_score", "rl_visible"]
    for found, of_last in zip(on_two_ranks[case], ([], ["previous", "frozen_and_previous"]), strict=True):
        mask, table = found["seen"]["mask"].table, found["table"]
        for by in ("by_layer", "by_kind"):
            assert ("previous" in mask[by]) == bool(of_last)
            for name in [*names, *of_last]:
                assert mask[by][name] == table[by][name], (by, name)
            assert mask[by]["rl_norm"] == pytest.approx(table[by]["rl_norm"])


def test_per_tensor_freezes_half_of_every_tensor(on_two_ranks: dict[str, list[dict[str, Any]]]):
    found = on_two_ranks["history"][0]
    table = found["seen"]["per_tensor"].table["by_layer"]
    norm = table["layer"].index("norm")
    assert table["frozen"][norm] == table["coordinates"][norm] // 2


def _tokens(settings: dict[str, Any]) -> tuple[list[Any], dict[int, Any]]:
    """All ranks' rows and tokens of one update of seven demonstrations, whose batch is filled up to eight."""
    from mifo_verl.verl.sft_step import rows_of, tokens_of

    engine = make_engine(MOVING | settings)
    metrics = update(engine, examples(7))["metrics"]
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, {key: metrics[key] for key in ("mifo_rows", "mifo_tokens") if key in metrics})
    merged = {key: [rank[key] for rank in everywhere] for key in everywhere[0]}
    return rows_of(merged), tokens_of(merged)


def test_the_tokens_of_an_update_come_back_whole_and_only_where_they_are_asked_for():
    (rows, tokens), (same_rows, none) = run_on_ranks(_tokens, 2, [({},), ({"mifo.inspect.tokens": False},)])
    assert none == {} and same_rows == rows
    assert sorted(tokens) == list(range(7))
    for (row, kept, entropy), example in zip(rows, examples(7), strict=True):
        values, keep = tokens[row]
        assert len(values) == len(keep) == len(example.response_ids)
        assert keep.sum() == kept == -(-len(keep) // 5)
        assert values.sum() == pytest.approx(entropy, rel=1e-5)
        assert keep.all() or values[keep].min() >= values[~keep].max()
