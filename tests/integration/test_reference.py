"""Two whole intervals on the engine against tests/reference: the same weights, importance and masks.

How near is near enough is measured and not chosen: the reference runs in float32 and in float64, and what rounding does
to it is the yardstick. The engine sums in another order, so it may be as far from the float32 run as two roundings are.
The yardstick itself is short: float32 stores a weight of 0.1 to 4e-9, and a step is 1e-4, so rounding is some 4e-5 of
the movement.

AdamW divides by the root of a second moment, so a coordinate whose gradient is all rounding takes a step of full length
in a direction by chance. An ``eps`` of the size of a gradient (1e-4) leaves such coordinates where they are.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
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
REFERENCES: dict[Any, list[Any]] = {}


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


def by_reference(optimizer: str, change: Callable[[Any], Any], start: torch.Tensor, dtype: torch.dtype) -> list[Any]:
    """What ``by_engine`` finds, in plain torch; made once for the same arguments."""
    key = optimizer, change, dtype, hashlib.sha256(start.numpy().tobytes()).hexdigest()
    if key not in REFERENCES:
        REFERENCES[key] = _by_reference(optimizer, change, start, dtype)
    return REFERENCES[key]


def _by_reference(optimizer: str, change: Callable[[Any], Any], start: torch.Tensor, dtype: torch.dtype) -> list[Any]:
    from transformers import AutoModelForCausalLM

    from tests.integration.engine_ranks import _quickstart

    torch.set_num_threads(1)
    path = _quickstart().actor_rollout_ref.model.path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    parts = change(model)
    model.to(dtype)
    reference = Reference(*parts, replace(SETTINGS, optimizer=optimizer))
    reference.set_weights(start)
    found, norms, left = [], [], iter(batches())
    for _ in (1, 2):
        reference.begin_interval()
        for _ in range(RL):
            reference.rl_update(next(left))
            norms.append(reference.norm)
        reference.begin_sft()
        state = {"mask": reference.frozen, "history": reference.importance}
        for _ in range(SFT):
            reference.sft_update(next(left))
            norms.append(reference.norm)
        reference.end_sft()
        found.append(state | {"weights": reference.weights(), "norms": list(norms)})
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
    "shared": (2, "shared", {}, plain),
    "separate": (2, "separate", {}, plain),
    "fresh": (2, "fresh", {}, plain),
    "LoRA": (2, "shared", LORA, with_adapters),
    "bf16": (2, "separate", BF16, in_bf16),
    "HSDP 2 x 2": (4, "shared", {f"{FSDP}.fsdp_size": 2}, plain),
}


@cache
def on_ranks(ranks: int) -> dict[str, list[dict[str, Any]]]:
    """What the engine does, of all cases with so many ranks."""
    cases = {name: settings | {SFT_OPTIMIZER: own} for name, (n, own, settings, _) in CASES.items() if n == ranks}
    return dict(zip(cases, run_on_ranks(by_engine, ranks, [(one,) for one in cases.values()]), strict=True))


@dataclass
class Distance:
    """How far two runs of two intervals are apart."""

    norms: float = 0.0
    """Largest relative difference of a gradient norm."""
    weights: float = 0.0
    """|difference| over |movement since the start|, both L2, of the coordinates that all masks treat alike."""
    history: float = 0.0
    """Largest difference of a remembered importance among those."""
    masks: int = 0
    """Coordinates that a mask of only one of them holds."""


def distance(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], start: torch.Tensor) -> Distance:
    """Of runs in any precision, taken in double."""
    found, alike = Distance(), torch.ones_like(start, dtype=torch.bool)
    for one, other in zip(ours, theirs, strict=True):
        alike &= one["mask"] == other["mask"]
        ratio = torch.tensor(one["norms"]).double() / torch.tensor(other["norms"]).double()
        found.norms = max(found.norms, float((ratio - 1).abs().max()))
        moved = (other["weights"].double() - start)[alike].norm()
        apart = (one["weights"].double() - other["weights"].double())[alike].norm()
        found.weights = max(found.weights, float(apart / moved))
        apart = (one["history"].double() - other["history"].double())[alike].abs().max()
        found.history = max(found.history, float(apart))
    found.masks = int((~alike).sum())
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_intervals_are_those_of_the_reference(case):
    ranks, optimizer, settings, change = CASES[case]
    start, *ours = on_ranks(ranks)[case]
    has_adapter = LORA.items() <= settings.items()  # whose coordinates are then all that the mask is of
    assert all(start["stands still"]) and bool(start["stands still"]) is has_adapter
    start = start["weights"].double()
    rounded = by_reference(optimizer, change, start, torch.float32)
    exact = by_reference(optimizer, plain if change is in_bf16 else change, start, torch.float64)
    rounding, apart = distance(rounded, exact, start), distance(ours, rounded, start)
    # both of bf16 round the same weights alike, and only their sums differ
    roundings, longest = (0.5, 0.3) if change is in_bf16 else (2, 1e-3)
    assert rounding.weights < longest
    assert {name: size for name, size in vars(apart).items() if size > roundings * getattr(rounding, name)} == {}
