"""A method at its extreme is its neighbour: the same digest of the weights, on one rank and on two."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from mifo_verl.types import SftExample
from tests.integration.engine_ranks import batch_of, examples, full, make_engine, run_on_ranks, update

PLAIN = {
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "mifo.sft.lr": 1e-4,
    "mifo.token_selector": {"name": "all"},
    "mifo.constraint": {"name": "none"},
    "mifo.inspect.mask": False,
    "mifo.probe.rollouts": 0,
}


def loss(name: str, **settings: Any) -> dict[str, Any]:
    return {"mifo.sft_loss": {"name": name, **settings}}


def held(name: str, **settings: Any) -> dict[str, Any]:
    return {"mifo.constraint": {"name": name, **settings}}


EXTREMES = {
    "trsft at alpha 1": (loss("trsft", alpha=1), "dft"),
    "idft before its ramp": (loss("idft"), "dft"),
    "entropy gate at power 0": (loss("entropy_gate", k=5, power=0), "nll"),
    "sed at strength 0": (loss("sed", strength=0), "nll"),
    "inspected and probed": ({"mifo.inspect.mask": True, "mifo.probe.rollouts": 16}, "nll"),
    "pear of clips at 0": (loss("pear", gamma=1, low=0, high=0), "nll"),
    "ewc at strength 0": (held("ewc", strength=0), "nll"),
    "kl anchor at strength 0": (held("kl_anchor", strength=0), "nll"),
}
OTHERS = {
    "nll": loss("nll"),
    "dft": loss("dft"),
    "idft": loss("idft", start=0, length=0),
    "sed": loss("sed", strength=20.0),
    "entropy gate": loss("entropy_gate", k=5),
    "ewc": held("ewc", strength=100),
    "ewc back": held("ewc", strength=1e4, fisher="ones", decoupled=True),
    "kl anchor": held("kl_anchor", strength=100),
    "kl anchor reversed": held("kl_anchor", strength=100, reverse=True),
    "kl anchor by token": held("kl_anchor", strength=100, estimator="token"),
    "ewc by second moments": held("ewc", strength=1000, fisher="second_moment"),
    "pear": loss("pear"),
    "pear in blocks": loss("pear", block=4),
}
CASES = {name: settings for name, (settings, _) in EXTREMES.items()} | OTHERS


def taught(number: int) -> list[SftExample]:
    """Demonstrations with a teacher's log-probabilities."""
    return [replace(one, teacher_log_probs=(-4.0,) * len(one.response_ids)) for one in examples(number)]


def _phase(settings: dict[str, Any]) -> dict[str, Any]:
    """An RL-like update, then an SFT phase of three: a digest of the weights, and how far it moved them."""
    engine = make_engine(PLAIN | settings)
    engine.interval.begin()
    update(engine, taught(8))
    engine.begin_sft(interval=1)
    before = torch.cat(full(engine.interval.model.weights()))
    for _ in range(3):
        update(engine, taught(6))
    engine.end_sft()
    after = torch.cat(full(engine.interval.model.weights()))
    return {"sha256": sha256_of(engine), "moved": float((after - before).norm())}


def sha256_of(engine: Any) -> str:
    """Of the whole weights, however they are sharded."""
    weights = torch.cat(full(engine.interval.model.weights()))
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def found(request) -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, run_on_ranks(_phase, request.param, [(case,) for case in CASES.values()]), strict=True))


@pytest.mark.parametrize("name", EXTREMES)
def test_an_extreme_has_the_weights_of_its_neighbour(found, name):
    assert found[name]["sha256"] == found[EXTREMES[name][1]]["sha256"]


def test_every_setting_that_is_no_extreme_changes_the_weights(found):
    assert len({found[name]["sha256"] for name in OTHERS}) == len(OTHERS)


def test_the_anchors_hold_the_weights_back(found):
    for name in ("ewc", "ewc by second moments", "kl anchor", "kl anchor reversed", "kl anchor by token"):
        assert found[name]["moved"] < 0.9 * found["nll"]["moved"], name
    assert found["ewc back"]["moved"] < 1e-5  # c lr = 1 puts every weight back where it was


def _gradient(rows_a_rank: int, cut: dict[str, Any]) -> torch.Tensor:
    """PEAR's gradient under a KL anchor, with the policy an update away from it."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(PLAIN | held("kl_anchor", strength=10) | loss("pear"))
    engine.interval.begin()
    engine.begin_sft(interval=1)
    update(engine, taught(8))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch_of(taught(7), engine, rows_a_rank, **cut), SftLossOfBatch(engine.mifo))
        return torch.cat(full(engine.interval.model.gradients()))


def test_the_gradient_of_pear_and_of_the_kl_does_not_depend_on_how_the_update_is_cut():
    cuts = [
        (1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}),
        (1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 60}),
        (2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}),
    ]
    whole, *others = run_on_ranks(_gradient, 1, cuts[:2]) + run_on_ranks(_gradient, 2, cuts[2:])
    for other in others:
        assert float((other - whole).norm()) <= 1e-5 * float(whole.norm())


def mixed(gate: dict[str, Any], mixing: dict[str, Any]) -> dict[str, Any]:
    return {"mifo.gate": gate, "mifo.mixing": mixing}


def given(prefix: dict[str, Any], off_policy: dict[str, Any]) -> dict[str, Any]:
    return {"mifo.prefix": prefix, "mifo.off_policy": off_policy}


NOW, PER_QUESTION = {"name": "now"}, {"name": "constant", "per": "question"}
WHOLE, SHAPED = {"name": "whole"}, {"name": "shaped"}
UFT = {"name": "supervised", "coefficient": 0.001, "per": "token_mean"}
THRESHOLDS = {"name": "staged", "thresholds": (-1, -1, -1, -1)}
IN_RL: dict[str, tuple[dict[str, Any], bool, str]] = {
    # settings, whether there are demonstrations, and whose weights they give
    "CHORD at mu 0": (mixed(NOW, {"name": "chord", "peak": 0, "valley": 0}), True, "rl"),
    "CHORD at mu 1": (mixed(NOW, {"name": "chord", "peak": 1, "valley": 1}), True, "sft"),
    "progressive at 0": (mixed(NOW, {"name": "progressive", "stages": (0,)}), True, "rl"),
    "HPT below 0": (mixed({"name": "hpt", "threshold": -1}, PER_QUESTION), True, "rl"),
    "HPT without demonstrations": (mixed({"name": "hpt"}, PER_QUESTION), False, "rl"),
    "HPT at 1": (mixed({"name": "hpt", "threshold": 1}, PER_QUESTION), True, "sft"),
    "data mixing of share 0": (mixed({"name": "random", "share": 0}, PER_QUESTION), True, "rl"),
    "data mixing of share 1": (mixed({"name": "random", "share": 1}, PER_QUESTION), True, "sft"),
    "RL + 0 SFT": (mixed(NOW, {"name": "constant", "sft": 0}), True, "rl"),
    "LUFFY without demonstrations": (given(WHOLE, SHAPED), False, "rl"),
    "SRFT without its own terms": (given(WHOLE, SHAPED) | mixed(NOW, {"name": "constant", "sft": 0}), True, "LUFFY"),
    "Prefix-RFT of share 0": (given({"name": "random", "low": 0, "high": 0}, {"name": "ratio"}), True, "rl"),
    "Prefix-RFT of share 1 by LUFFY's rule": (given({"name": "random", "low": 1, "high": 1}, SHAPED), True, "LUFFY"),
    "UFT of chance 0": (given({"name": "annealed", "low": 0, "high": 0}, UFT), True, "rl"),
    "TRAPO below 0": (given(THRESHOLDS, {"name": "supervised", "members": "first"}), True, "rl"),
    "BREAD below 0": (given(THRESHOLDS, {"name": "none"}), True, "rl"),
}
NEIGHBOURS = {
    "rl": ({}, True),
    "LUFFY": (given(WHOLE, SHAPED), True),
    "CHORD": (mixed(NOW, {"name": "chord"}), True),
    "HPT": (mixed({"name": "hpt"}, PER_QUESTION), True),
    "Prefix-RFT": (given({"name": "random"}, {"name": "ratio"}), True),
    "UFT": (given({"name": "annealed"}, UFT), True),
    "TRAPO": (given({"name": "staged"}, {"name": "supervised", "members": "first"}), True),
    "RL without probes": ({"mifo.probe.kl_to_start": False}, True),
}


def _rl_steps(settings: dict[str, Any], has_demonstrations: bool) -> str:
    """Three RL updates; a digest of the weights."""
    engine = make_engine(PLAIN | settings)
    for step in range(3):
        rl_update(engine, settings, step, has_demonstrations)
    return sha256_of(engine)


def rl_update(engine: Any, settings: dict[str, Any], step: int, has_demonstrations: bool = True) -> dict[str, Any]:
    """An RL update of eight questions as the loop decides it: staged, masked, or begun with given tokens."""
    from functools import partial

    from verl.utils import tensordict_utils as tu
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    from mifo_verl.loop.mixed import give, mix
    from mifo_verl.types import Progress, PromptGroup
    from mifo_verl.verl.rl_loss import CORRECT, FIRST, PREFIX, rl_loss
    from mifo_verl.verl.sft_step import SftLossOfBatch
    from mifo_verl.verl.staging import RL_WEIGHT, weighted
    from tests.integration.engine_ranks import configured

    made, mifo, whole = examples(8), engine.mifo, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
    has_prefixes = "demonstrations" in mifo.prefix.needs
    verls = partial(ppo_loss, config=omega_conf_to_dataclass(configured(settings).actor_rollout_ref.actor))
    progress = Progress(step, 1, step, steps=3)
    groups = {f"u{row}": PromptGroup(made[row].prompt_id, row % 3, 8, step + 1) for row in range(8)}
    found = {f"u{row}": made[row] if has_demonstrations else None for row in range(8)}
    decided = mix(mifo.gate, mifo.mixing, progress, groups, found.get)
    batch = batch_of(made, engine, **whole)  # rows are spread over the ranks by length, each with its number
    rows, lengths = batch["row"].tolist(), [len(row) for row in batch["responses"].unbind()]
    keeps = [float(f"u{row}" not in decided.without_rl) for row in rows]

    def column(values: list[float]) -> Any:
        tokens = [torch.full((length,), value) for length, value in zip(lengths, values, strict=True)]
        return torch.nested.as_nested_tensor(tokens, layout=torch.jagged)

    batch["response_mask"] = batch["loss_mask"] = column(keeps).long()
    batch["advantages"] = column([keep * (0.5 - (row + step) % 2) for keep, row in zip(keeps, rows, strict=True)])
    batch["old_log_probs"], batch["entropy"] = column([-5.0] * len(rows)), column([1.0] * len(rows))
    if "correct" in mifo.on_policy.needs:
        batch[CORRECT] = torch.tensor([row % 3 > 0 for row in rows]).long()
    if has_prefixes:
        starts = []
        for row in rows:
            ends = [len(made[row].response_ids)]
            plan = give(mifo.prefix, found[f"u{row}"], lambda ids, ends=ends: ends, 8, progress, 0, f"u{row}")
            starts.append(plan.start(7, dict.fromkeys(range(7), False)))
        tu.assign_non_tensor_stack(batch, PREFIX, [len(start.tokens) for start in starts])
        tu.assign_non_tensor_stack(batch, FIRST, [int(start.is_first) for start in starts])
    if not decided.is_rl:
        tu.assign_non_tensor(batch, **{RL_WEIGHT: decided.weights.rl})
    if decided.entries:
        staged = batch_of([entry.example for entry in decided.entries], engine, **whole)
        denominator = len(groups) if decided.per_question else None
        engine.stage_sft(weighted(staged, decided.weights.sft, denominator), SftLossOfBatch(mifo))
    with engine.train_mode():
        output = engine.train_batch(batch, rl_loss(verls, mifo.off_policy, mifo.on_policy, has_prefixes))
    engine.take_staged()
    return output["metrics"]


def _sft_steps() -> str:
    """Three SFT updates on the demonstrations of the same eight questions, by RL's optimizer."""
    engine = make_engine(PLAIN)
    for _ in range(3):
        update(engine, examples(8))
    return sha256_of(engine)


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def in_rl(request) -> dict[str, str]:
    cases = {name: case[:2] for name, case in IN_RL.items()} | NEIGHBOURS
    hashes = dict(zip(cases, run_on_ranks(_rl_steps, request.param, list(cases.values())), strict=True))
    return hashes | {"sft": run_on_ranks(_sft_steps, request.param, [()])[0]}


@pytest.mark.parametrize("name", IN_RL)
def test_a_mixed_method_at_its_extreme_has_the_weights_of_its_neighbour(in_rl, name):
    assert in_rl[name] == in_rl[IN_RL[name][2]]


def test_no_mixed_method_that_is_no_extreme_has_the_weights_of_another(in_rl):
    assert in_rl["RL without probes"] == in_rl["rl"]
    others = [in_rl[name] for name in (*NEIGHBOURS, "sft") if name != "RL without probes"]
    assert len(set(others)) == len(others)
