"""The SFT phase on FSDP2 shards over gloo: what is frozen holds still, and a loss is the same however it is cut."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.integration.engine_ranks import batch_of, examples, full, make_engine, run_on_ranks, update

SFT_LR = 2e-4
MOVING = {
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "actor_rollout_ref.actor.optim.weight_decay": 0.1,
    "actor_rollout_ref.actor.optim.clip_grad": 0.7,
    "mifo.sft.lr": SFT_LR,
    "mifo.sft.optimizer": "shared",
}


def _phase(num_updates: int, settings: dict[str, Any]) -> dict[str, Any]:
    """RL-like updates that fill AdamW's moments, then one SFT phase; the weights around it and the mask."""
    engine = make_engine(MOVING | settings)
    model = engine.interval.model
    untrained = [parameter for parameter in engine.module.parameters() if not parameter.requires_grad]
    base = [parameter.full_tensor().clone() for parameter in untrained]
    engine.interval.begin()
    start = full(model.weights())
    for _ in range(2):
        update(engine, examples(8))
    before = full(model.weights())
    moments = full([state for _, _, state in model.optimizer_state(engine.optimizer)])
    rl_optimizer, lrs = engine.optimizer, [group["lr"] for group in engine.optimizer.param_groups]
    report = engine.begin_sft(interval=1)
    mask = None if report is None else full([frozen for frozen in engine.interval.constraint.frozen])
    for _ in range(num_updates):
        update(engine, examples(6))
    sft_lr = engine.optimizer.param_groups[0]["lr"]
    steps = {float(state["step"]) for state in engine.optimizer.state.values()}
    drift = engine.end_sft()
    after = full(model.weights())
    moments_after = full([state for _, _, state in model.optimizer_state(engine.optimizer)])
    update(engine, examples(8))
    history = getattr(engine.interval.constraint, "history", None)
    return {
        "start": start,
        "before": before,
        "after": after,
        "later": full(model.weights()),
        "moments": moments,
        "moments_after": moments_after,
        "mask": mask,
        "report": report,
        "drift": drift,
        "sft_lr": sft_lr,
        "restored": engine.optimizer is rl_optimizer and [g["lr"] for g in engine.optimizer.param_groups] == lrs,
        "sft_steps": steps,
        "history": None if history is None else full(history),
        "clip_grad": engine.optimizer_config.clip_grad,
        "untrained": sum(parameter.numel() for parameter in untrained),
        "base_held": all(torch.equal(p.full_tensor(), old) for p, old in zip(untrained, base, strict=True)),
    }


def moved(mask: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> int:
    return int((before[mask] != after[mask]).sum())


CASES = {
    "strict": (3, {}),
    "gradient": (2, {"mifo.constraint.name": "gradient"}),
    "separate": (2, {"mifo.sft.optimizer": "separate"}),
    "fresh": (2, {"mifo.sft.optimizer": "fresh"}),
    "gradient alone": (
        2,
        {
            "mifo.constraint.name": "gradient",
            "mifo.sft.optimizer": "fresh",
            "actor_rollout_ref.actor.optim.weight_decay": 0.0,
        },
    ),
    "dagger": (1, {"mifo.constraint.history": 0}),
    "bottom": (2, {"mifo.constraint.history": 0, "mifo.constraint.side": "bottom"}),
    "fisher": (2, {"mifo.importance": {"name": "fisher"}}),
    "adapter": (
        2,
        {
            "actor_rollout_ref.model.lora_rank": 4,
            "actor_rollout_ref.model.lora_alpha": 8,
            "actor_rollout_ref.model.lora.merge": True,
        },
    ),
    "no freeze": (1, {"mifo.constraint": {"name": "none"}, "mifo.probe.kl_to_start": False}),
}


@pytest.fixture(scope="module")
def on_two_ranks() -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, run_on_ranks(_phase, 2, list(CASES.values())), strict=True))


@pytest.fixture(scope="module")
def on_one_rank() -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, run_on_ranks(_phase, 1, [CASES["strict"]]), strict=False))


@pytest.mark.parametrize("ranks", ["on_one_rank", "on_two_ranks"])
def test_strict_freezing_keeps_weights_and_moments_bit_identical_under_momentum_and_weight_decay(ranks, request):
    run = request.getfixturevalue(ranks)["strict"]
    total = sum(mask.numel() for mask in run["mask"])
    assert run["report"].num_coordinates == total
    assert run["report"].num_frozen == total // 2 == sum(int(mask.sum()) for mask in run["mask"])
    assert run["drift"] == 0.0
    pairs = zip(run["mask"], run["before"], run["after"], strict=True)
    assert sum(moved(mask, before, after) for mask, before, after in pairs) == 0
    masks_of_moments = [mask for mask in run["mask"] for _ in range(2)]
    changed = zip(masks_of_moments, run["moments"], run["moments_after"], strict=True)
    assert sum(moved(mask, before, after) for mask, before, after in changed) == 0
    free = zip(run["mask"], run["before"], run["after"], strict=True)
    assert sum(moved(~mask, before, after) for mask, before, after in free) > 0.9 * (total - total // 2)


def test_the_mask_of_a_run_with_lora_holds_half_of_the_adapter_and_the_base_never_moves(on_two_ranks):
    run = on_two_ranks["adapter"]
    total = sum(mask.numel() for mask in run["mask"])
    assert (total, run["untrained"]) == (40_960, 888_576) and run["base_held"]
    assert on_two_ranks["strict"]["untrained"] == 0
    assert run["report"].num_frozen == total // 2 and run["drift"] == 0.0
    pairs = list(zip(run["mask"], run["before"], run["after"], strict=True))
    assert sum(moved(mask, before, after) for mask, before, after in pairs) == 0
    assert sum(moved(~mask, before, after) for mask, before, after in pairs) > 0.9 * total / 2


def test_everything_is_trainable_again_and_the_rl_settings_are_back(on_two_ranks):
    run = on_two_ranks["strict"]
    assert run["restored"] and run["clip_grad"] == 0.7 and run["sft_lr"] == SFT_LR
    again = zip(run["mask"], run["after"], run["later"], strict=True)
    assert sum(moved(mask, before, after) for mask, before, after in again) > 0


def test_gradient_freezing_lets_moments_and_weight_decay_move_the_frozen_weights(on_two_ranks):
    run = on_two_ranks["gradient"]
    assert run["drift"] is None
    pairs = zip(run["mask"], run["before"], run["after"], strict=True)
    assert sum(moved(mask, before, after) for mask, before, after in pairs) > 0


def test_a_zero_gradient_alone_holds_still_without_moments_and_weight_decay(on_two_ranks):
    run = on_two_ranks["gradient alone"]
    pairs = zip(run["mask"], run["before"], run["after"], strict=True)
    assert sum(moved(mask, before, after) for mask, before, after in pairs) == 0


@pytest.mark.parametrize(("optimizer", "steps"), [("strict", {5.0}), ("separate", {2.0}), ("fresh", {2.0})])
def test_each_sft_optimizer_counts_its_own_steps(on_two_ranks, optimizer, steps):
    run = on_two_ranks[optimizer]
    assert run["sft_steps"] == steps and run["restored"] and run["drift"] == 0.0


def test_the_history_keeps_only_what_was_frozen_and_mifo_dagger_keeps_none(on_two_ranks):
    run = on_two_ranks["strict"]
    assert all(torch.equal(history > 0, mask) for history, mask in zip(run["history"], run["mask"], strict=True))
    assert on_two_ranks["dagger"]["history"] is None and on_two_ranks["dagger"]["drift"] == 0.0


def largest(scores: list[torch.Tensor], masks: list[torch.Tensor]) -> bool:
    """Whether no score outside the masks is above one inside them."""
    score, mask = torch.cat(scores), torch.cat(masks)
    return bool(score[mask].min() >= score[~mask].max())


def test_the_bottom_share_holds_what_rl_has_changed_least_and_fisher_the_largest_second_moments(on_two_ranks):
    bottom, fisher = on_two_ranks["bottom"], on_two_ranks["fisher"]
    for run in (bottom, fisher):
        assert run["report"].num_frozen == run["report"].num_coordinates // 2 and run["drift"] == 0.0
        pairs = zip(run["mask"], run["before"], run["after"], strict=True)
        assert sum(moved(mask, before, after) for mask, before, after in pairs) == 0
    change = [(end - start).abs() for start, end in zip(bottom["start"], bottom["before"], strict=True)]
    assert largest([-delta for delta in change], bottom["mask"])
    assert bottom["report"].threshold == float(torch.cat(change)[torch.cat(bottom["mask"])].max())
    assert largest(fisher["moments"][1::2], fisher["mask"])  # exp_avg and exp_avg_sq of every tensor, in this order


def test_without_freezing_there_is_no_mask_and_all_weights_move(on_two_ranks):
    run = on_two_ranks["no freeze"]
    assert run["report"] is None and run["mask"] is None and run["drift"] is None
    assert all(not torch.equal(before, after) for before, after in zip(run["before"], run["after"], strict=True))


def _two_sft_phases(optimizer: str) -> tuple[list[float], list[float]]:
    """The optimizer's steps, and the size of its first moments, at the end of each of two SFT phases."""
    engine = make_engine(MOVING | {"mifo.sft.optimizer": optimizer})
    steps, moments = [], []
    for number in (1, 2):
        engine.interval.begin()
        update(engine, examples(8))
        engine.begin_sft(number)
        for _ in range(2):
            update(engine, examples(6))
        steps += [float(state["step"]) for state in list(engine.optimizer.state.values())[:1]]
        engine.end_sft()
        moments.append(0.0 if engine._sft_optimizer is None else float(len(engine._sft_optimizer.state)))
    return steps, moments


def test_a_fresh_optimizer_begins_anew_in_every_phase_and_a_separate_one_goes_on():
    fresh, separate, shared = run_on_ranks(_two_sft_phases, 1, [("fresh",), ("separate",), ("shared",)])
    assert (fresh[0], separate[0], shared[0]) == ([2.0, 2.0], [2.0, 4.0], [3.0, 6.0])
    assert fresh[1] == shared[1] == [0.0, 0.0] and min(separate[1]) > 0


RL_SCHEDULES = {
    # 2 of 4 RL steps warm up to 8e-4, and it stays there; a cosine over 4 RL steps: 8e-4 * (1 + cos(pi * step / 4)) / 2
    "constant": ({"lr_warmup_steps": 2}, [0.0, 4e-4, 8e-4, 8e-4]),
    "cosine": ({"lr_warmup_steps": 0}, [8e-4, 6.8284271e-4, 4e-4, 1.1715729e-4]),
}


def _learning_rates(kind: str, settings: dict[str, Any]) -> list[float]:
    """The rate of 4 RL updates, with an SFT phase of 2 updates before each."""
    optim = {f"actor_rollout_ref.actor.optim.{name}": value for name, value in settings.items()}
    optim |= {"actor_rollout_ref.actor.optim.lr": 8e-4, "actor_rollout_ref.actor.optim.lr_scheduler_type": kind}
    engine = make_engine(optim | {"mifo.sft.lr": SFT_LR, "mifo.sft.optimizer": "shared"}, rl_steps=4)
    rates = []
    for number in range(1, 5):
        engine.interval.begin()
        engine.begin_sft(number)
        for _ in range(2):
            update(engine, examples(4))
            assert engine.optimizer.param_groups[0]["lr"] == SFT_LR
        engine.end_sft()
        rates.append(engine.optimizer.param_groups[0]["lr"])
        update(engine, examples(4))
        engine.lr_scheduler_step()
    return rates


def test_rl_s_learning_rate_schedule_counts_rl_steps_alone():
    found = run_on_ranks(_learning_rates, 1, [(kind, settings) for kind, (settings, _) in RL_SCHEDULES.items()])
    for rates, (_, expected) in zip(found, RL_SCHEDULES.values(), strict=True):
        assert rates == pytest.approx(expected, abs=1e-10)


class LowBits(torch.optim.SGD):
    """An optimizer whose moments are 8-bit codes, as bitsandbytes keeps them."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["state1"] = torch.zeros_like(parameter, dtype=torch.uint8)


def _low_bits() -> str:
    engine = make_engine(MOVING)
    engine.optimizer = LowBits(engine.module.parameters(), lr=0.1)
    engine.interval.begin()
    update(engine, examples(4))
    try:
        engine.begin_sft(interval=1)
    except ValueError as error:
        return str(error)
    return ""


def test_moments_of_less_than_16_bits_are_refused():
    assert run_on_ranks(_low_bits, 1, [()]) == [
        "actor_rollout_ref.actor.optim.optimizer=LowBits must keep its moments in at least 16 bits, and state1 is "
        "Tensor of torch.uint8; use AdamW"
    ]


def _norms() -> tuple[float, float, float]:
    """The norm that the update clips by, and the gradient's norm over the free and over all coordinates."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(MOVING)
    engine.interval.begin()
    update(engine, examples(8))
    engine.begin_sft(interval=1)
    batch = batch_of(examples(6), engine, use_dynamic_bsz=True, max_token_len_per_gpu=4096)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch, SftLossOfBatch(engine.mifo))
        gradient = torch.cat(full(engine.interval.model.gradients()))
        frozen = torch.cat(full(engine.interval.constraint.frozen))
        return engine.optimizer_step(), float(gradient[~frozen].norm()), float(gradient.norm())


def test_the_clip_norm_is_taken_after_the_mask():
    ((clipped_by, free, whole),) = run_on_ranks(_norms, 2, [()])
    assert clipped_by == pytest.approx(free, rel=1e-4) and free < 0.99 * whole


def _two_intervals(history: float) -> list[list[torch.Tensor]]:
    """Importance of the first interval, change in the second, importance and mask of the second."""
    engine = make_engine({"mifo.constraint.history": history})
    model, interval = engine.interval.model, engine.interval
    found = []
    for number in (1, 2):
        engine.interval.begin()
        for weight, where in zip(model.weights(), model.slices, strict=True):
            index = torch.arange(where.first, where.first + weight.numel())
            weight.add_(((index * (7919, 104729)[number - 1]) % 1009).float() * 2.0**-12)
        change = [(end - start).abs() for end, start in zip(model.weights(), interval.start, strict=True)]
        interval.begin_sft(number, engine.optimizer)
        found.append(
            [full(part) for part in (change, interval.constraint.history or change, interval.constraint.frozen)]
        )
        interval.constraint.release(engine.optimizer)
    (_, first, _), (change, second, mask) = found
    return [first, change, second, mask]


def test_the_history_is_remembered_with_weight_alpha_and_decides_the_next_mask():
    (first, change, second, mask), (*_, dagger_mask) = run_on_ranks(_two_intervals, 2, [(0.5,), (0.0,)])
    for c1, delta, c2, frozen in zip(first, change, second, mask, strict=True):
        assert torch.equal(c2, torch.where(frozen, 0.5 * c1 + 0.5 * delta, 0.0))
    assert any(not torch.equal(one, other) for one, other in zip(mask, dagger_mask, strict=True))


def _reference_and_engine() -> tuple[float, float, list[float], list[float]]:
    """Loss and entropy sums by a plain forward pass, one example at a time, and by the engine."""
    from transformers import AutoModelForCausalLM

    from mifo_verl.verl.sft_step import SftLossOfBatch, rows_of
    from tests.integration.engine_ranks import _quickstart

    model = AutoModelForCausalLM.from_pretrained(_quickstart().actor_rollout_ref.model.path, dtype=torch.float32)
    losses, entropies = [], []
    for example in examples(7):
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, len(example.prompt_ids) - 1 : -1].double()
        log_prob = torch.log_softmax(logits, dim=-1)
        entropy = -(log_prob.exp() * log_prob).sum(dim=-1)
        kept = entropy.topk(-(-len(example.response_ids) // 5)).indices
        chosen = log_prob[torch.arange(len(example.response_ids)), torch.tensor(example.response_ids)]
        losses.append(-float(chosen[kept].sum()) / len(example.response_ids))
        entropies.append(float(entropy.sum()))
    engine = make_engine({})
    batch = batch_of(examples(7), engine, use_dynamic_bsz=True, max_token_len_per_gpu=4096)
    with engine.train_mode():
        output = engine.forward_backward_batch(batch, SftLossOfBatch(engine.mifo))
    rows = rows_of({"mifo_rows": [output["metrics"]["mifo_rows"]]})
    return sum(losses) / 7, sum(output["loss"]), entropies, [entropy for _, _, entropy in rows]


def test_the_engines_loss_and_entropy_are_those_of_a_plain_forward_pass():
    ((loss, ours, entropies, our_entropies),) = run_on_ranks(_reference_and_engine, 1, [()])
    assert ours == pytest.approx(loss, rel=1e-5)
    assert our_entropies == pytest.approx(entropies, rel=1e-5)


def _packed_and_padded() -> list[dict[str, list[float]]]:
    """Entropy and KL to other logits: one sequence at a time, of padded logits, of packed ones with 3 tokens more."""
    from verl.utils import tensordict_utils as tu

    from mifo_verl.verl.engine import POLICY_SHIFT, TOKEN_FACTS

    engine = make_engine({})
    batch = batch_of(examples(3), engine)
    lengths = batch["input_ids"].offsets().diff().tolist()
    draw = torch.Generator().manual_seed(0)
    now, start = ([torch.randn(length, 265, generator=draw) for length in lengths] for _ in range(2))
    tu.assign_non_tensor(batch, **{TOKEN_FACTS: True, POLICY_SHIFT: True})

    labels = {"input_ids_rmpad_rolled": batch["input_ids"].values().roll(-1), "temperature": torch.ones(3)}

    def found(
        lay_out: Callable[[list[torch.Tensor]], torch.Tensor], arguments: dict[str, Any]
    ) -> dict[str, list[float]]:
        for is_before, logits in ((True, start), (False, now)):  # the two passes of a probe
            engine._is_before = is_before
            output = SimpleNamespace(logits=lay_out(logits))
            by_token = engine.prepare_model_outputs(output, labels | arguments, batch, None)
            engine._start_output = dict.fromkeys(("log_probs", "entropy"), torch.zeros(1))
        engine._start_logits = None
        return {name: by_token[name].values().tolist() for name in ("entropy", "kl")}

    log_now, log_start = (torch.cat(logits).double().log_softmax(-1) for logits in (now, start))
    plain = {"entropy": -(log_now.exp() * log_now).sum(-1), "kl": (log_now.exp() * (log_now - log_start)).sum(-1)}
    padded = found(lambda logits: torch.nn.utils.rnn.pad_sequence(logits, batch_first=True), {})
    tu.assign_non_tensor(batch, use_remove_padding=True)
    labels["input_ids_rmpad_rolled"] = torch.cat([labels["input_ids_rmpad_rolled"], torch.zeros(3, dtype=torch.long)])
    arguments = {"pad_size": 3, "temperature_rmpad": torch.ones(sum(lengths) + 3)}
    packed = found(lambda logits: torch.cat([*logits, torch.ones(3, 265)])[None], arguments)
    return [{name: values.tolist() for name, values in plain.items()}, padded, packed]


def test_entropy_and_kl_of_padded_and_of_packed_logits_are_those_of_every_sequence_alone():
    ((plain, *ours),) = run_on_ranks(_packed_and_padded, 1, [()])
    assert len(plain["kl"]) > 3 and min(plain["kl"]) > 0.1
    for found in ours:
        for name, values in plain.items():
            assert found[name] == pytest.approx(values, rel=1e-4), name


def _with_and_without_logits(settings: dict[str, Any]) -> dict[str, Any]:
    """Of one SFT batch twice: the loss, the rows and the gradient, the second time of a model that scales its logits."""
    from mifo_verl.verl.sft_step import SftLossOfBatch, rows_of

    engine = make_engine(settings)
    cut = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 64}
    found: dict[str, Any] = {"logits": []}

    def one_pass() -> dict[str, Any]:
        with engine.train_mode():
            engine.optimizer_zero_grad()
            batch = batch_of(examples(6), engine, **cut)
            output = engine.forward_backward_batch(batch, SftLossOfBatch(engine.mifo))
            gradient = torch.cat(full(engine.interval.model.gradients()))
        rows = rows_of({"mifo_rows": [output["metrics"]["mifo_rows"]]})
        return {"loss": float(sum(output["loss"])), "rows": rows, "gradient": gradient}

    def seen(_: Any, __: Any, output: Any) -> None:
        found["logits"].append(output.logits.shape[-1])

    def scaled(_: Any, __: Any, output: Any) -> Any:
        output.logits = output.logits * 1.0  # a new tensor, as of a soft cap
        return output

    engine.module.register_forward_hook(seen)
    found["without"] = one_pass()
    engine.module.register_forward_hook(scaled)
    found["with"] = one_pass()
    return found


ADAPTER = {f"actor_rollout_ref.model.{name}": 4 for name in ("lora_rank", "lora_alpha")}
ALL_TOKENS = {"mifo.sft_loss": {"name": "dft"}, "mifo.token_selector": {"name": "all"}}


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_sft_update_without_logits_is_that_with_logits_which_a_model_that_scales_them_keeps(ranks):
    cases = [({},), (ALL_TOKENS,), (ADAPTER,)]
    for found in run_on_ranks(_with_and_without_logits, ranks, cases):
        with_logits, without, widths = found["with"], found["without"], found["logits"]
        # log p and the entropy of each token; then a pass that finds that its logits are scaled, and logits from there
        passes = (len(widths) - 1) // 2
        assert widths == [2] * passes + [2] + [265] * passes
        assert without["loss"] == pytest.approx(with_logits["loss"], rel=1e-6)
        for (row, kept, entropy), other in zip(without["rows"], with_logits["rows"], strict=True):
            assert (row, kept) == other[:2] and entropy == pytest.approx(other[2], rel=1e-6)
        size, apart = with_logits["gradient"].norm(), (without["gradient"] - with_logits["gradient"]).norm()
        assert float(size) > 0 and float(apart) <= 1e-6 * float(size)


def _mask_of_a_known_change(settings: dict[str, Any]) -> list[torch.Tensor]:
    """The mask after a change of the weights that is the same on every number of ranks, full of ties and zeros."""
    engine = make_engine(settings)
    model = engine.interval.model
    engine.interval.begin()
    for weight, where in zip(model.weights(), model.slices, strict=True):
        index = torch.arange(where.first, where.first + weight.numel())
        weight.copy_((index * 7919 % 13).clamp(max=9) * 2.0**-10)
    for start in engine.interval.start:
        start.zero_()
    engine.interval.begin_sft(3, engine.optimizer)
    return full(engine.interval.constraint.frozen)


def _mask_of_no_change() -> tuple[int, float | None]:
    engine = make_engine({})
    engine.interval.begin()
    report = engine.interval.begin_sft(1, engine.optimizer)
    return report.num_frozen, report.threshold


def test_where_rl_has_changed_nothing_nothing_is_frozen_and_there_is_no_threshold():
    assert run_on_ranks(_mask_of_no_change, 2, [()]) == [(0, None)]


def test_the_mask_is_the_same_on_1_2_and_4_ranks():
    rules = [({},), ({"mifo.constraint.scope": "per_tensor"},), ({"mifo.importance": {"name": "random", "seed": 0}},)]
    by_ranks = [run_on_ranks(_mask_of_a_known_change, ranks, rules) for ranks in (1, 2, 4)]
    for rule, one, two, four in zip(rules, *by_ranks, strict=True):
        assert sum(int(mask.sum()) for mask in one) > 0
        for number, (a, b, c) in enumerate(zip(one, two, four, strict=True)):
            assert torch.equal(a, b) and torch.equal(a, c), (rule, number)


def _loss_and_gradient(
    rows_a_rank: int, cut: dict[str, Any], settings: dict[str, Any]
) -> tuple[float, list[torch.Tensor]]:
    from mifo_verl.verl.sft_step import SftLossOfBatch, rows_of

    engine = make_engine(settings)
    batch = batch_of(examples(7), engine, rows_a_rank, **cut)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(batch, SftLossOfBatch(engine.mifo), forward_only=False)
        gradient = full(engine.interval.model.gradients())
    loss = torch.tensor(sum(output["loss"]), dtype=torch.float64)
    torch.distributed.all_reduce(loss)
    rows: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(rows, output["metrics"])
    assert [row for row, _, _ in rows_of({"mifo_rows": [rank["mifo_rows"] for rank in rows]})] == list(range(7))
    return loss.item() / torch.distributed.get_world_size(), gradient


CUTS = [
    (1, 1, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1}),
    (1, 2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}),
    (1, 4, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 4}),
    (1, 1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 60}),
    (2, 1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}),
    (2, 2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}),
]
RULES = [
    {},
    {"mifo.token_selector": {"name": "random", "ratio": 0.2}, "mifo.sft_loss": {"name": "dft"}},
    {"mifo.token_selector": {"name": "all"}, "mifo.sft.normalise": "token"},
]


def _token_mean() -> tuple[float, float]:
    """The loss of an update as a mean over all its tokens: by the engine, and by a plain forward pass."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine({"mifo.token_selector": {"name": "all"}, "mifo.sft.normalise": "token"})
    total, num_tokens = 0.0, 0
    with torch.no_grad(), engine.eval_mode():
        for one in examples(5):
            logits = engine.module(input_ids=torch.tensor([one.prompt_ids + one.response_ids])).logits[0].double()
            log_prob = logits.log_softmax(-1)[len(one.prompt_ids) - 1 : -1]
            total -= float(log_prob.gather(1, torch.tensor(one.response_ids)[:, None]).sum())
            num_tokens += len(one.response_ids)
    batch = batch_of(examples(5), engine, use_dynamic_bsz=True, max_token_len_per_gpu=60)
    with engine.train_mode():
        output = engine.forward_backward_batch(batch, SftLossOfBatch(engine.mifo))
    return sum(output["loss"]), total / num_tokens


def test_the_loss_may_be_a_mean_over_all_tokens_of_the_update():
    ((ours, plain),) = run_on_ranks(_token_mean, 1, [()])
    assert ours == pytest.approx(plain, rel=1e-5)


def test_loss_and_gradient_do_not_depend_on_how_the_update_is_cut():
    for_ranks = {
        ranks: run_on_ranks(
            _loss_and_gradient, ranks, [(rows, cut, rule) for rule in RULES for n, rows, cut in CUTS if n == ranks]
        )
        for ranks in (1, 2)
    }
    for number in range(len(RULES)):
        results = [
            result
            for found in for_ranks.values()
            for result in found[number * len(found) // len(RULES) : (number + 1) * len(found) // len(RULES)]
        ]
        assert len(results) == len(CUTS)
        (loss, gradient), *others = results
        for other_loss, other_gradient in others:
            assert other_loss == pytest.approx(loss, rel=1e-6)
            difference = torch.cat([one - two for one, two in zip(gradient, other_gradient, strict=True)])
            assert float(difference.norm()) <= 1e-6 * float(torch.cat(gradient).norm())


def _broken(settings: dict[str, Any], weight: float | None) -> list[str]:
    engine = make_engine(settings)
    engine.interval.begin()
    for parameter in engine.interval.model.weights():
        parameter += 1e-3  # every coordinate moves
    if weight is not None and dist.get_rank() == dist.get_world_size() - 1:
        engine.interval.model.weights()[0][0] = weight
    said = ""
    try:
        engine.begin_sft(interval=1)
    except (FloatingPointError, ValueError) as error:
        said = str(error)
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, said)
    return every


def test_weights_that_are_not_finite_and_masks_that_leave_nothing_end_the_phase_on_every_rank():
    cases = [({}, float("nan")), ({}, float("inf")), ({"mifo.constraint.share": 1.0}, None), ({}, None)]
    nan, infinite, everything, fine = run_on_ranks(_broken, 2, cases)
    for said in (nan, infinite):
        assert said[0] == said[1] and said[0].startswith("the importance of 1 coordinates is not finite")
    assert everything[0] == everything[1] and "mifo.constraint.share=1.0 must leave something to train" in everything[0]
    assert fine == ["", ""]


def _sparsified(phase: str, folder: str) -> dict[str, Any]:
    """An RL update and an SFT update with half of the gradient dropped in one phase: what each update lost."""
    shared = {"mifo.sft.optimizer": "shared", "mifo.constraint": {"name": "none"}}
    sparse = shared | {"mifo.constraint": {"name": "sparsify", "rate": 0.5, "phase": phase}}
    plain, engine = make_engine(shared), make_engine(sparse)
    seen: list[list[torch.Tensor]] = []
    for one in (plain, engine):
        one.optimizer.register_step_pre_hook(lambda *_, one=one: seen.append(full(one.interval.model.gradients())))
    update(plain, examples(8))
    engine.interval.begin()
    update(engine, examples(8))
    engine.begin_sft(interval=1)
    update(engine, examples(8))
    engine.save_interval(Path(folder))
    again = make_engine(sparse)
    again.load_interval(Path(folder))
    reached = torch.cat(seen[0]) != 0
    dropped = [torch.cat(gradients)[reached] == 0 for gradients in seen[1:]]
    return {"dropped": dropped, "updates": (engine.interval.constraint.updates, again.interval.constraint.updates)}


def test_gradients_are_dropped_in_the_phase_asked_for_the_same_on_every_number_of_ranks(tmp_path):
    cases = [(phase, str(tmp_path / phase)) for phase in ("both", "rl", "sft")]
    one, two = run_on_ranks(_sparsified, 1, cases[:1]), run_on_ranks(_sparsified, 2, cases)
    for alone, together in zip(one, two, strict=False):
        assert alone["updates"] == together["updates"]
        for a, b in zip(alone["dropped"], together["dropped"], strict=True):
            assert float((a != b).float().mean()) < 1e-3  # a gradient that underflows on one side
    both, rl, sft = ([float(zeros.float().mean()) for zeros in case["dropped"]] for case in two)
    assert both == [pytest.approx(0.5, abs=0.005)] * 2
    assert rl == [pytest.approx(0.5, abs=0.005), pytest.approx(0.0, abs=0.005)]
    assert sft == [pytest.approx(0.0, abs=0.005), pytest.approx(0.5, abs=0.005)]
    assert [case["updates"] for case in two] == [(2, 2), (1, 1), (1, 1)]
    first, second = two[0]["dropped"]
    assert float((first & second).float().mean()) == pytest.approx(0.25, abs=0.005)  # drawn anew


OPTIM = "actor_rollout_ref.actor.optim"
CHANGED = {
    "nothing": {},
    "RL's learning rate": {f"{OPTIM}.lr": 5e-4},
    "RL's clip": {f"{OPTIM}.clip_grad": 20.0},
    "weight decay": {f"{OPTIM}.weight_decay": 0.0},
    "betas": {f"{OPTIM}.betas": [0.8, 0.999]},
    "warm-up": {f"{OPTIM}.lr_warmup_steps": 3},
    "mifo.sft.lr": {"mifo.sft.lr": 1e-4},
    "mifo.sft.clip_grad": {"mifo.sft.clip_grad": 20.0},
    "mifo.sft.optimizer=shared": {"mifo.sft.optimizer": "shared"},
    "mifo.sft.optimizer=fresh": {"mifo.sft.optimizer": "fresh"},
    "mifo.sft.normalise": {"mifo.sft.normalise": "token"},
    "mifo/constraint=gradient": {"mifo.constraint.name": "gradient"},
    "mifo/constraint=none": {"mifo.constraint": {"name": "none"}},
    "mifo.constraint.share": {"mifo.constraint.share": 0.25},
    "mifo.constraint.history": {"mifo.constraint.history": 0.9},
    "mifo.constraint.scope": {"mifo.constraint.scope": "per_tensor"},
    "mifo/importance": {"mifo.importance": {"name": "random", "seed": 0}},
    "mifo/importance=fisher": {"mifo.importance": {"name": "fisher"}},
    "mifo.token_selector.ratio": {"mifo.token_selector.ratio": 0.5},
    "mifo/token_selector=random": {"mifo.token_selector": {"name": "random", "ratio": 0.2}},
    "mifo/sft_loss=dft": {"mifo.sft_loss": {"name": "dft"}},
    "mifo/sft_loss=chord_phi": {"mifo.sft_loss": {"name": "chord_phi"}},
}


def _two_whole_intervals(settings: dict[str, Any]) -> torch.Tensor:
    engine = make_engine(MOVING | {"mifo.sft.optimizer": "separate"} | settings)
    for number in (1, 2):
        engine.interval.begin()
        update(engine, examples(4))
        engine.lr_scheduler_step()
        engine.begin_sft(number)
        for size in (3, 5):
            update(engine, examples(size))
        engine.end_sft()
    return torch.cat(full(engine.interval.model.weights()))


def test_every_setting_of_an_update_changes_the_weights():
    found = dict(zip(CHANGED, run_on_ranks(_two_whole_intervals, 1, [(one,) for one in CHANGED.values()]), strict=True))
    plain = found.pop("nothing")
    dead = [name for name, weights in found.items() if float((weights - plain).abs().max()) < 1e-5]
    assert dead == []
