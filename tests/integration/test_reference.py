"""Two whole intervals on the engine against tests/reference: the same weights, importance and masks."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from mifo_verl.types import SftExample
from tests.integration.engine_ranks import full, make_engine, run_on_ranks, update
from tests.reference.interval import Reference, Settings, examples, plain

RL, SFT = 2, 2
SETTINGS = Settings(rl_lr=1e-4, sft_lr=2e-4, rl_clip=0.7, sft_clip=0.5, weight_decay=0.1, eps=1e-6)
CONFIG = {
    "actor_rollout_ref.actor.optim.lr": SETTINGS.rl_lr,
    "actor_rollout_ref.actor.optim.weight_decay": SETTINGS.weight_decay,
    "actor_rollout_ref.actor.optim.clip_grad": SETTINGS.rl_clip,
    "actor_rollout_ref.actor.optim.override_optimizer_config": {"eps": SETTINGS.eps},
    "mifo.sft.lr": SETTINGS.sft_lr,
    "mifo.sft.clip_grad": SETTINGS.sft_clip,
    "mifo.sft.optimizer": "shared",
}
VOCABULARY = 265


def batches() -> list[list[Any]]:
    """The batches of two intervals, by update."""
    return [list(examples(6, VOCABULARY, seed)) for seed in range(2 * (RL + SFT))]


def by_engine(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Weights, importance and mask at the end of both intervals, and the gradient norms on the way."""
    engine = make_engine(CONFIG | settings)
    found, norms, left = [], [], iter(batches())
    copies = dist.get_world_size() // engine.device_mesh.size(-1)

    def whole(tensors: list[torch.Tensor]) -> torch.Tensor:
        """All coordinates once: HSDP holds as many copies as it has replicas."""
        return torch.cat([one[: one.numel() // copies] for one in full(tensors)])

    def step() -> None:
        made = [SftExample(f"p{n}", p, r, "0" * 64) for n, (p, r) in enumerate(next(left))]
        norms.append(float(update(engine, made)["metrics"]["grad_norm"]))

    for interval in (1, 2):
        engine.interval.begin()
        for _ in range(RL):
            step()
        engine.begin_sft(interval=interval)
        constraint = engine.interval.constraint
        mask, history = whole(constraint.frozen), whole(constraint.history)
        for _ in range(SFT):
            step()
        engine.end_sft()
        weights = whole(engine.interval.model.weights())
        found.append({"weights": weights, "mask": mask, "history": history, "norms": list(norms)})
    return found


def by_reference(settings: Settings) -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    from tests.integration.engine_ranks import _quickstart

    path = _quickstart().actor_rollout_ref.model.path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    parameters, logits = plain(model)
    reference = Reference(parameters, logits, settings)
    found, norms, left = [], [], iter(batches())
    for _ in (1, 2):
        reference.begin_interval()
        for _ in range(RL):
            reference.rl_update(next(left))
            norms.append(reference.norm)
        reference.begin_sft()
        mask, history = reference.frozen, reference.importance
        for _ in range(SFT):
            reference.sft_update(next(left))
            norms.append(reference.norm)
        reference.end_sft()
        found.append({"weights": reference.weights(), "mask": mask, "history": history, "norms": list(norms)})
    return found


FSDP = "actor_rollout_ref.actor.fsdp_config"


@pytest.mark.parametrize(
    ("ranks", "config"),
    [
        (1, {}),
        (2, {}),
        (4, {f"{FSDP}.fsdp_size": 2}),
    ],
    ids=["one rank", "two ranks", "HSDP 2 x 2"],
)
def test_two_intervals_are_those_of_the_reference(ranks, config):
    (ours,) = run_on_ranks(by_engine, ranks, [(config,)])
    theirs = by_reference(SETTINGS)
    for one, other in zip(ours, theirs, strict=True):
        assert one["norms"] == pytest.approx(other["norms"], rel=1e-5)
        assert int(one["mask"].sum()) == int(other["mask"].sum()) == one["mask"].numel() // 2
        same = one["mask"] == other["mask"]
        assert int((~same).sum()) <= 10, (
            "of 888,576 coordinates, those whose scores differ in the last bit at the threshold"
        )
        assert float((one["weights"] - other["weights"])[same].abs().max()) < 2e-6
        assert float((one["history"] - other["history"])[same].abs().max()) < 1e-7
