"""Two whole intervals on the engine against tests/reference: the same weights, importance and masks.

AdamW divides by the root of a second moment, so a coordinate whose gradient is all rounding takes a step of full length
in a direction by chance; in float64 the reference itself ends as far from its float32 as the engine does. An ``eps`` of
the size of a gradient (1e-4) leaves such coordinates where they are.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from mifo_verl.types import SftExample
from tests.integration.engine_ranks import full, make_engine, run_on_ranks, update
from tests.reference.interval import Reference, Settings, examples, plain

RL, SFT = 2, 2
SETTINGS = Settings(rl_lr=1e-4, sft_lr=2e-4, rl_clip=0.7, sft_clip=0.5, weight_decay=0.1, eps=1e-4)
CONFIG = {
    "actor_rollout_ref.actor.optim.lr": SETTINGS.rl_lr,
    "actor_rollout_ref.actor.optim.weight_decay": SETTINGS.weight_decay,
    "actor_rollout_ref.actor.optim.clip_grad": SETTINGS.rl_clip,
    "actor_rollout_ref.actor.optim.override_optimizer_config": {"eps": SETTINGS.eps},
    "mifo.sft.lr": SETTINGS.sft_lr,
    "mifo.sft.clip_grad": SETTINGS.sft_clip,
}
VOCABULARY = 265


def batches() -> list[list[Any]]:
    """The batches of two intervals, by update."""
    return [list(examples(4, VOCABULARY, seed, longest=16)) for seed in range(2 * (RL + SFT))]


def by_engine(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The weights at the start; then weights, importance, mask and gradient norms so far, at the end of each interval."""
    engine = make_engine(CONFIG | settings)
    held = [p.to_local() if isinstance(p, DTensor) else p for p in engine.module.parameters() if not p.requires_grad]
    before = [p.detach().clone() for p in held]
    found, norms, left = [], [], iter(batches())
    copies = dist.get_world_size() // engine.device_mesh.size(-1)

    def whole(tensors: list[torch.Tensor]) -> torch.Tensor:
        """All coordinates once: HSDP holds as many copies as it has replicas."""
        return torch.cat([one[: one.numel() // copies] for one in full(tensors)])

    def step() -> None:
        made = [SftExample(f"p{n}", p, r, "0" * 64) for n, (p, r) in enumerate(next(left))]
        norms.append(float(update(engine, made)["metrics"]["grad_norm"]))

    found.append({"weights": whole(engine.interval.model.weights())})
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
    found[0]["stands still"] = [bool((one == other).all()) for one, other in zip(held, before, strict=True)]
    return found


def by_reference(optimizer: str, change: Callable[[Any], Any], start: torch.Tensor) -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    from tests.integration.engine_ranks import _quickstart

    torch.set_num_threads(1)
    path = _quickstart().actor_rollout_ref.model.path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    reference = Reference(*change(model), replace(SETTINGS, optimizer=optimizer))
    reference.set_weights(start)
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


def with_adapters(model: Any) -> Any:
    """LoRA by peft's own words: only the adapters train."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", bias="none")
    return plain(get_peft_model(model, settings))


def in_bf16(model: Any) -> Any:
    """Float32 master weights, rounded for every forward pass; the gradient of the rounding is 1."""
    named = {name: p for name, p in model.named_parameters()}

    def logits(ids: list[int]) -> torch.Tensor:
        rounded = {name: p.bfloat16() for name, p in named.items()}
        return torch.func.functional_call(model, rounded, (torch.tensor([ids]),)).logits[0].float()

    return list(named.values()), logits


FSDP, MODEL = "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.model"
SFT_OPTIMIZER = "mifo.sft.optimizer"
LORA = {f"{MODEL}.lora_rank": 4, f"{MODEL}.lora_alpha": 8, f"{MODEL}.target_modules": "all-linear"}
BF16 = {f"{FSDP}.mixed_precision.param_dtype": "bf16"}
# ranks, optimizer of the SFT phase, settings, model of the reference
CASES: dict[str, tuple[int, str, dict[str, Any], Callable[[Any], Any]]] = {
    "shared": (1, "shared", {}, plain),
    "separate": (1, "separate", {}, plain),
    "fresh": (1, "fresh", {}, plain),
    "LoRA": (1, "separate", LORA, with_adapters),
    "bf16": (1, "separate", BF16, in_bf16),
    "two ranks": (2, "separate", {}, plain),
    "LoRA on two ranks": (2, "shared", LORA, with_adapters),
    "HSDP 2 x 2": (4, "shared", {f"{FSDP}.fsdp_size": 2}, plain),
}


@cache
def on_ranks(ranks: int) -> dict[str, list[dict[str, Any]]]:
    """What the engine does, of all cases with so many ranks."""
    cases = {name: settings | {SFT_OPTIMIZER: own} for name, (n, own, settings, _) in CASES.items() if n == ranks}
    return dict(zip(cases, run_on_ranks(by_engine, ranks, [(one,) for one in cases.values()]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_two_intervals_are_those_of_the_reference(case):
    ranks, optimizer, settings, change = CASES[case]
    start, *ours = on_ranks(ranks)[case]
    theirs = by_reference(optimizer, change, start["weights"])
    has_adapter = LORA.items() <= settings.items()  # whose coordinates are then all that the mask is of
    assert all(start["stands still"]) and bool(start["stands still"]) is has_adapter
    is_bf16 = settings == BF16  # 8 bits of a forward pass that is padded here and not there
    for one, other in zip(ours, theirs, strict=True):
        assert one["norms"] == pytest.approx(other["norms"], rel=0.06 if is_bf16 else 2e-5)
        assert int(one["mask"].sum()) == int(other["mask"].sum()) == one["mask"].numel() // 2
        same = one["mask"] == other["mask"]
        # of 888,576 coordinates, those whose scores differ in the last bits at the threshold
        assert int((~same).sum()) <= (0.01 * same.numel() if is_bf16 else 10)
        moved = (other["weights"] - start["weights"])[same].norm()
        assert float((one["weights"] - other["weights"])[same].norm() / moved) < (0.1 if is_bf16 else 1e-4)
        assert float((one["history"] - other["history"])[same].abs().max()) < (1e-4 if is_bf16 else 1e-7)
