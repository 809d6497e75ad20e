"""The probes' forward passes: against whole logits of two models, on one rank and on two, and without a trace."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.integration.engine_ranks import examples, full, make_engine, run_on_ranks, update

ROWS = 5
MICRO_BATCHES: dict[str, dict[str, Any]] = {
    "by tokens": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 64},
    "by rows": {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1},
}


def _fails(engine: Any, **sizes: Any) -> bool:
    """Whether a probe whose second pass fails raises and leaves no logits behind."""

    def out_of_memory(**_: Any) -> Any:
        raise MemoryError

    try:
        _probe(engine, True, out_of_memory, **sizes)
    except MemoryError:
        return engine._start_logits is None and engine._start_output == {}
    return False


def _probe(engine: Any, with_shift: bool, loss: Any = None, **sizes: Any) -> list[Any]:
    """The sums by row, as the worker asks for them."""
    from verl.utils import tensordict_utils as tu

    from mifo_verl.probes.step import SumsOfBatch, probe_batch
    from mifo_verl.verl.sft_step import ROWS as KEY
    from mifo_verl.verl.sft_step import BatchCut

    num_ranks = dist.get_world_size()
    rows = [(one.prompt_ids, one.response_ids) for one in examples(ROWS)]
    data = probe_batch(rows, BatchCut(num_ranks, 1, pad_token_id=0), with_shift)
    data = tu.chunk_tensordict(data, num_ranks)[dist.get_rank()]
    tu.assign_non_tensor(data, use_remove_padding=False, use_fused_kernels=False, **sizes)
    with engine.eval_mode():
        output = engine.infer_batch(data, loss or SumsOfBatch())
    parts: list[Any] = [None] * num_ranks
    dist.all_gather_object(parts, output["metrics"][KEY])
    return sorted(row for part in parts for row in part)


def _reference(engine: Any) -> list[list[torch.Tensor]]:
    """log-softmax (response tokens, V) of every row, one row at a time, straight from the module."""
    found = []
    with torch.no_grad(), engine.eval_mode():
        for one in examples(ROWS):
            ids = torch.tensor([one.prompt_ids + one.response_ids])
            logits = engine.module(input_ids=ids).logits[0].double().log_softmax(-1)
            found.append(logits[len(one.prompt_ids) - 1 : -1])
    return found


def _around_an_update(sizes: dict[str, Any], moves: bool) -> dict[str, Any]:
    settings = {"mifo.sft.lr": 1e-2, "mifo.constraint": {"name": "none"}, "mifo.inspect.mask": False}
    engine = make_engine(settings)
    engine.interval.begin()
    update(engine, examples(4))  # what RL changed: theta_start of the interval is not the policy before SFT
    with engine.train_mode():
        engine.begin_sft(interval=1)
    before = _reference(engine)
    if moves:
        update(engine, examples(4))
    engine.end_sft()
    after = _reference(engine)
    weights = full(engine.interval.model.weights())
    draws = torch.random.get_rng_state()
    sums, plain = _probe(engine, True, **sizes), _probe(engine, False, **sizes)
    same = all(torch.equal(a, b) for a, b in zip(weights, full(engine.interval.model.weights()), strict=True))
    return {
        "before": before,
        "after": after,
        "sums": sums,
        "plain": plain,
        "same": same and torch.equal(draws, torch.random.get_rng_state()),
        "free": engine._start_logits is None and _fails(engine, **sizes),
    }


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    by_tokens, by_rows = MICRO_BATCHES["by tokens"], MICRO_BATCHES["by rows"]
    two, still = run_on_ranks(_around_an_update, 2, [(by_rows, True), (by_tokens, False)])
    (one,) = run_on_ranks(_around_an_update, 1, [(by_tokens, True)])
    return {"one rank": one, "two ranks": two, "nothing changed": still}


def test_every_sum_is_that_of_whole_logits_before_and_after(runs):
    for run in (runs["one rank"], runs["two ranks"]):
        assert run["same"] and run["free"]
        rows = zip(examples(ROWS), run["before"], run["after"], run["sums"], run["plain"], strict=True)
        for place, (one, before, after, sums, plain) in enumerate(rows):
            drawn = torch.tensor(one.response_ids)[:, None]
            row, tokens, log_prob, entropy, start_log_prob, start_entropy, kl = sums
            assert (row, tokens) == (place, len(one.response_ids)) == plain[:2]
            assert log_prob == pytest.approx(float(after.gather(1, drawn).sum()), rel=1e-4) == plain[2]
            assert start_log_prob == pytest.approx(float(before.gather(1, drawn).sum()), rel=1e-4)
            assert entropy == pytest.approx(float(-(after.exp() * after).sum()), rel=1e-4)
            assert start_entropy == pytest.approx(float(-(before.exp() * before).sum()), rel=1e-4)
            assert kl == pytest.approx(float((after.exp() * (after - before)).sum()), rel=1e-3)
            assert kl > 1e-3 and len(plain) == 3


def test_a_phase_that_changed_nothing_has_a_kl_of_0(runs):
    for _, _, log_prob, entropy, start_log_prob, start_entropy, kl in runs["nothing changed"]["sums"]:
        assert (log_prob, entropy, kl) == (start_log_prob, start_entropy, 0.0)
