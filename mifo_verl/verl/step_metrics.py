"""verl's metrics of a step as one record, and the accuracies in them."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from mifo_verl.verl.hard_prompts import HardPrompts

_STAGES = {
    "gen": "rollout",
    "old_log_prob": "old_log_prob",
    "ref": "reference",
    "values": "critic",
    "update_critic": "critic_update",
    "adv": "advantage",
    "update_actor": "actor_update",
    "kl_to_start": "kl_to_start",
    "hard_prompts": "hard_prompts",
    "update_weights": "weight_sync",
    "testing": "validation",
    "probe": "probe",
    "save_checkpoint": "checkpoint",
}
"""verl's and our timers, and the stage that a record names them by."""

_MEMORY = {
    "device_allocated": "actor/perf/max_memory_allocated_gb",
    "device_reserved": "actor/perf/max_memory_reserved_gb",
    "host_used": "actor/perf/cpu_memory_used_gb",
}
"""What a record calls verl's memory metrics (GiB): peaks of the actor's device, and what is used of the host."""


def rl_line(
    metrics: dict[str, Any],
    timing_raw: dict[str, float],
    prompts: HardPrompts,
    interval: int,
    step: int,
    num_sequences: int,
) -> dict[str, Any]:
    """The record of one RL step that trained on ``num_sequences`` rollouts."""
    trained = {f"{part}_tokens": _total(metrics, part, num_sequences) for part in ("prompt", "response")}
    return {
        "step": step,
        "phase": "rl",
        "interval": interval,
        "update": 0,
        "reward": _number(metrics, "critic/score/mean"),
        "accuracy": prompts.num_correct / prompts.num_rollouts if prompts.num_rollouts else None,
        "entropy": _number(metrics, "mifo/rl/entropy"),
        "kl_to_start": _number(metrics, "mifo/rl/kl_to_start"),
        "kl_tokens": _number(metrics, "mifo/rl/kl_tokens"),
        "kept_share": None,
        "frozen_share": 0.0,
        "loss": _number(metrics, "actor/loss"),
        "grad_norm": _number(metrics, "actor/grad_norm"),
        "response_length": _number(metrics, "response_length/mean"),
        "rollouts": prompts.num_rollouts,
        **trained,
        "rejected_demonstrations": dict(sorted(prompts.rejected.items())),
        "prompts": [[group.prompt_id, group.num_correct, group.num_rollouts] for group in prompts.groups],
        "memory_gb": {name: _number(metrics, metric) for name, metric in _MEMORY.items()},
        "seconds": {stage: timing_raw[timer] for timer, stage in _STAGES.items() if timer in timing_raw},
    }


def accuracy_by_source(metrics: dict[str, Any]) -> dict[str, float]:
    """Validation accuracy of every data source among verl's metrics, and their mean; empty where none are there."""
    found = {}
    for name, value in metrics.items():
        if name.startswith("val-core/") and "/acc/mean@" in name:
            found[name.removeprefix("val-core/").split("/acc/mean@")[0]] = float(value)
    return _with_mean(found)


def mean_by_source(accuracies: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The same of (data source, accuracy) of every prompt."""
    found: dict[str, list[float]] = {}
    for source, accuracy in accuracies:
        found.setdefault(source, []).append(accuracy)
    return _with_mean({source: fmean(values) for source, values in found.items()})


def _with_mean(found: dict[str, float]) -> dict[str, float]:
    in_order = dict(sorted(found.items()))  # verl's order is that of random uids; a sum depends on it
    return {**in_order, "mean": sum(in_order.values()) / len(in_order)} if in_order else {}


def _total(metrics: dict[str, Any], part: str, num_sequences: int) -> int:
    """Tokens of all prompts or responses of the batch, from verl's mean of their lengths."""
    return round((_number(metrics, f"{part}_length/mean") or 0.0) * num_sequences)


def _number(metrics: dict[str, Any], name: str) -> float | None:
    return float(metrics[name]) if name in metrics else None
