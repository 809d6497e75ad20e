"""A method at its extreme is its neighbour: the same weights after an SFT phase, to the bit, on one rank and on two."""

import hashlib
from typing import Any

import pytest
import torch

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
}
CASES = {name: settings for name, (settings, _) in EXTREMES.items()} | OTHERS


def _phase(settings: dict[str, Any]) -> dict[str, Any]:
    """An RL-like update, then an SFT phase of three: a digest of the weights, and how far it moved them."""
    engine = make_engine(PLAIN | settings)
    engine.interval.begin()
    update(engine, examples(8))
    engine.begin_sft(interval=1)
    before = torch.cat(full(engine.interval.model.weights()))
    for _ in range(3):
        update(engine, examples(6))
    engine.end_sft()
    after = torch.cat(full(engine.interval.model.weights()))
    return {"sha256": hashlib.sha256(after.numpy().tobytes()).hexdigest(), "moved": float((after - before).norm())}


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def found(request) -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, run_on_ranks(_phase, request.param, [(case,) for case in CASES.values()]), strict=True))


@pytest.mark.parametrize("name", EXTREMES)
def test_an_extreme_has_the_weights_of_its_neighbour(found, name):
    assert found[name]["sha256"] == found[EXTREMES[name][1]]["sha256"]


def test_every_setting_that_is_no_extreme_changes_the_weights(found):
    assert len({found[name]["sha256"] for name in OTHERS}) == len(OTHERS)


def test_the_anchors_hold_the_weights_back(found):
    for name in ("ewc", "kl anchor", "kl anchor reversed"):
        assert found[name]["moved"] < 0.9 * found["nll"]["moved"], name
    assert found["ewc back"]["moved"] < 1e-5  # c lr = 1 puts every weight back where it was


def _gradient(rows_a_rank: int, cut: dict[str, Any]) -> torch.Tensor:
    """The gradient under a KL anchor, with the policy an update away from it."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(PLAIN | held("kl_anchor", strength=10))
    engine.interval.begin()
    engine.begin_sft(interval=1)
    update(engine, examples(8))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch_of(examples(7), engine, rows_a_rank, **cut), SftLossOfBatch(engine.mifo))
        return torch.cat(full(engine.interval.model.gradients()))


def test_the_gradient_of_the_kl_does_not_depend_on_how_the_update_is_cut():
    cuts = [
        (1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}),
        (1, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 60}),
        (2, {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}),
    ]
    whole, *others = run_on_ranks(_gradient, 1, cuts[:2]) + run_on_ranks(_gradient, 2, cuts[2:])
    for other in others:
        assert float((other - whole).norm()) <= 1e-5 * float(whole.norm())
