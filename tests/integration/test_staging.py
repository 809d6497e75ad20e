"""Two losses in one update on FSDP2 shards over gloo: the sum of both gradients, neutral to the bit, cut as one likes."""

from typing import Any

import pytest
import torch

from tests.integration.engine_ranks import batch_of, examples, full, make_engine, run_on_ranks

SETTINGS = {"actor_rollout_ref.actor.optim.lr": 1e-3, "mifo.token_selector": {"name": "all"}}
ALL = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
CUTS = [
    (1, 1, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1}),
    (1, 1, ALL),
    (2, 1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 60}),
    (2, 2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}),
]


def rl_batch(engine: Any, weight: float | None = None) -> Any:
    """A stand-in for a mini-batch of rollouts: eight sequences of their own, with a loss of their own."""
    from verl.utils import tensordict_utils as tu

    from mifo_verl.verl.staging import RL_WEIGHT

    batch = batch_of(examples(8), engine, **ALL)
    if weight is not None:
        tu.assign_non_tensor(batch, **{RL_WEIGHT: weight})
    return batch


def rl_loss_of(engine: Any) -> Any:
    """Any loss of verl's signature does; here the negative of SFT's, on all tokens."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    sft = SftLossOfBatch(engine.mifo)

    def loss(model_output: Any, data: Any, dp_group: Any = None) -> Any:
        value, _ = sft(model_output, data, dp_group)
        return -0.5 * value, {"rl": 1.0}

    return loss


def staged_batch(engine: Any, weight: float, number: int, denominator: int | None, rows: int, cut: Any) -> Any:
    from mifo_verl.verl.staging import weighted

    return weighted(batch_of(examples(number), engine, rows, **cut), weight, denominator)


def gradients_of(
    rl_weight: float | None, sft: float | None, denominator: int | None = None, rows: int = 1, cut: Any = None
) -> dict[str, Any]:
    """The gradient of one update: RL's, and that of 5 staged demonstrations where ``sft`` is their weight."""
    from mifo_verl.verl.sft_step import SftLossOfBatch, rows_of

    engine = make_engine(SETTINGS)
    if sft is not None:
        engine.stage_sft(staged_batch(engine, sft, 5, denominator, rows, cut or ALL), SftLossOfBatch(engine.mifo))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(rl_batch(engine, rl_weight), rl_loss_of(engine))
        gradient = torch.cat(full(engine.interval.model.gradients()))
    taken = engine.take_staged()
    return {
        "gradient": gradient,
        "rl_loss": sum(output["loss"]),
        "metrics": sorted(output["metrics"]),
        "sft_loss": [one.loss for one in taken],
        "rows": [rows_of({"mifo_rows": [one.metrics["mifo_rows"]]}) for one in taken],
    }


def alone(weight: float) -> torch.Tensor:
    """The gradient of the five demonstrations alone."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(SETTINGS)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch_of(examples(5), engine, **ALL), SftLossOfBatch(engine.mifo))
        return weight * torch.cat(full(engine.interval.model.gradients()))


def close(one: torch.Tensor, other: torch.Tensor, *parts: torch.Tensor) -> bool:
    """Equal but for rounding, which is that of the ``parts`` where these are summed and cancel in part."""
    size = sum(float(part.double().norm()) for part in parts or (other,))
    return float((one.double() - other.double()).norm()) <= 1e-6 * size


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def found(request) -> dict[str, Any]:
    ranks = request.param
    cases: dict[str, tuple[Any, ...]] = {
        "rl": (None, None),
        "rl at 1": (1.0, None),
        "mixed": (0.75, 0.25),
        "sft at 1": (0.0, 1.0),
        "per question": (1.0, 1.0, 20),
        **{f"cut {place}": (0.75, 0.25, None, rows, cut) for place, (n, rows, cut) in enumerate(CUTS) if n == ranks},
    }
    results = run_on_ranks(gradients_of, ranks, list(cases.values()))
    return dict(zip(cases, results, strict=True)) | {"sft": run_on_ranks(alone, ranks, [(1.0,)])[0]}


def test_an_update_without_a_staged_batch_is_rls_to_the_bit(found):
    assert torch.equal(found["rl at 1"]["gradient"], found["rl"]["gradient"])
    assert found["rl"]["sft_loss"] == [] and found["rl"]["rl_loss"] < 0


def test_both_gradients_add_up_with_their_weights(found):
    parts = 0.75 * found["rl"]["gradient"], 0.25 * found["sft"]
    assert close(found["mixed"]["gradient"], sum(parts), *parts)
    assert not close(found["mixed"]["gradient"], found["rl"]["gradient"], *parts)
    assert found["mixed"]["rl_loss"] == pytest.approx(found["rl"]["rl_loss"], rel=1e-6)  # reported unweighted
    assert found["mixed"]["metrics"] == ["rl"]


def test_at_weight_0_of_rl_the_update_is_sfts_to_the_bit(found):
    assert torch.equal(found["sft at 1"]["gradient"], found["sft"])
    assert found["sft at 1"]["rl_loss"] == pytest.approx(found["rl"]["rl_loss"], rel=1e-6)


def test_a_mean_over_questions_divides_five_demonstrations_by_the_twenty_questions(found):
    assert close(found["per question"]["gradient"], found["rl"]["gradient"] + found["sft"] * 5 / 20)


def test_the_staged_loss_does_not_depend_on_how_its_batch_is_cut(found):
    cuts = [case for name, case in found.items() if name.startswith("cut")]
    assert cuts
    for case in cuts:
        assert close(case["gradient"], found["mixed"]["gradient"], 0.75 * found["rl"]["gradient"], 0.25 * found["sft"])


def _two_updates() -> dict[str, Any]:
    """Three batches are staged for two updates; then an update that finds none."""
    from mifo_verl.verl.sft_step import SftLossOfBatch, rows_of

    engine = make_engine(SETTINGS)
    for number in (4, 2, 3):
        engine.stage_sft(staged_batch(engine, 0.5, number, None, 1, ALL), SftLossOfBatch(engine.mifo))
    outputs = [engine_update(engine) for _ in range(2)]
    try:
        engine.take_staged()
        said = ""
    except RuntimeError as error:
        said = str(error)
    engine.stage_sft(staged_batch(engine, 0.5, 4, None, 1, ALL), SftLossOfBatch(engine.mifo))
    engine_update(engine)
    taken = engine.take_staged()
    engine_update(engine)
    return {
        "said": said,
        "norms": [output["metrics"]["grad_norm"] for output in outputs],
        "rows": [row for row, _, _ in rows_of({"mifo_rows": [taken[0].metrics["mifo_rows"]]})],
        "after": engine.take_staged(),
        "steps": {float(state["step"]) for state in engine.optimizer.state.values()},
    }


def engine_update(engine: Any) -> dict[str, Any]:
    with engine.train_mode():
        return engine.train_batch(rl_batch(engine), rl_loss_of(engine))


def test_updates_take_up_staged_batches_in_order_each_in_one_step_of_the_optimizer():
    (run,) = run_on_ranks(_two_updates, 1, [()])
    assert run["said"] == "1 staged SFT batches were left over by 2 updates"
    assert run["steps"] == {4.0} and run["rows"] == [0, 1, 2, 3] and run["after"] == []
    assert all(norm > 0 for norm in run["norms"])
