"""verl's metrics of an RL step as its record, an SFT phase's records as metrics for verl's trackers."""

import hashlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from statistics import fmean
from typing import Any

from msgspec import UNSET, UnsetType, structs
from transfer_queue import KVBatchMeta

from mifo_verl.loop.events import Event, Policies, Staged, StepEnded, UpdateMade, Validated
from mifo_verl.loop.loop import Loop
from mifo_verl.loop.state import LoopState, SftProgress
from mifo_verl.probes.probes import mean_by_source
from mifo_verl.run.compute import RlCost, sft_flops
from mifo_verl.run.journal import OTHER, lines_sha256, step_seconds
from mifo_verl.run.watchdog import CannotGoOn
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.joint_update import ADAPTER_NORM, CLIP_SHARE, GAIN, SECOND_NORM
from mifo_verl.verl.skipped_updates import MAX_SKIPPED

Metrics = dict[str, Any]
"""verl's, by name."""
Timers = dict[str, float]
"""verl's, seconds by name."""

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


def rl_record(
    metrics: Mapping[str, Any],
    timing_raw: Mapping[str, float],
    loop: Loop,
    batch: KVBatchMeta,
    cost: RlCost,
    discarded_rollouts: int,
) -> StepEnded:
    """The record of the RL step that trained on a batch, before it is validated and saved."""
    rows = sum(not tag.get("is_padding", False) for tag in batch.tags)
    prompt, response = (
        round((_number(metrics, f"{part}_length/mean") or 0.0) * rows) for part in ("prompt", "response")
    )
    given, staged, mixed = sum(loop.members.values()), staged_of(loop), loop.mixed
    trains = mixed is None or mixed.weights.rl > 0
    generated, flops = cost.of_step(prompt + response, response, rows, discarded_rollouts, loop.unasked_tokens, trains)
    if staged is not None:
        flops += sft_flops(cost.num_weights, staged.prompt_tokens + staged.response_tokens)
    phase = loop.ended or loop.state.sft  # the one that this step's rollouts have begun
    before = None if phase is None else phase.before
    kl_tokens, policies = _number(metrics, "mifo/rl/kl_tokens"), _policies(metrics)
    return StepEnded(
        step=loop.state.step + 1,
        interval=loop.state.interval - (loop.ended is not None),
        reward=_number(metrics, "critic/score/mean"),
        accuracy=loop.accuracy,
        entropy=_number(metrics, "mifo/rl/entropy"),
        kl_to_start=_number(metrics, "mifo/rl/kl_to_start"),
        kl_tokens=None if kl_tokens is None else int(kl_tokens),
        loss=_number(metrics, "actor/loss"),
        grad_norm=_number(metrics, "actor/grad_norm"),
        response_length=_number(metrics, "response_length/mean"),
        rollout_difference=None if loop.members else rollout_difference(metrics),
        rollouts=loop.num_rollouts,
        fallback_share=loop.num_fallbacks / loop.num_rollouts if loop.num_rollouts else None,
        prompt_tokens=prompt,
        response_tokens=response,
        rejected_demonstrations=dict(sorted(loop.rejected.items())),
        prompts=[[group.prompt_id, group.num_correct, group.num_rollouts] for group in loop.groups.values()],
        memory_gb={name: _number(metrics, metric) for name, metric in _MEMORY.items()},
        seconds={stage: timing_raw[timer] for timer, stage in _STAGES.items() if timer in timing_raw},
        discarded_rollouts=discarded_rollouts,
        generated_tokens=generated - given,
        flops=flops,
        buffer_size=len(loop.state.buffer) if phase is None else phase.buffer_size,
        cross_entropy_before=UNSET if before is None else before.cross_entropy_start,
        cross_entropy_after=UNSET if before is None else before.cross_entropy,
        members=len(loop.members) if loop.members else UNSET,
        prefix_tokens=given if loop.members else UNSET,
        members_sha256=lines_sha256(line.line() for line in loop.member_lines) if loop.members else UNSET,
        mixing=UNSET if mixed is None or (mixed.is_rl and policies is UNSET) else mixed.weights._asdict(),
        staged=UNSET if staged is None else staged,
        sampling=loop.sampling or UNSET,
        policies=policies,
    )


def rollout_difference(metrics: Mapping[str, Any]) -> float | None:
    """Mean |p_rollout - p_actor| of the response tokens, as verl has taken it; None if it was not."""
    found = _number(metrics, "training/rollout_probs_diff_mean")
    return found if found is not None and math.isfinite(found) else None


def require_one_policy(metrics: Mapping[str, Any], limit: float) -> None:
    """Raise CannotGoOn if the rollout server and the actor differ by more than ``limit``."""
    found = rollout_difference(metrics)
    if found is not None and found > limit:
        raise CannotGoOn(
            f"the rollout server gave response tokens other probabilities than the actor, by {found:.3g} on average "
            f"(mifo.watchdog.max_rollout_difference={limit:g}): its weights are not the actor's, or its dtype, "
            "temperature or chat template; compare actor_rollout_ref.rollout with actor_rollout_ref.actor"
        )


def _policies(metrics: Mapping[str, Any]) -> Policies | UnsetType:
    adapter, second, gain, share = (
        _number(metrics, f"actor/{name}") for name in (ADAPTER_NORM, SECOND_NORM, GAIN, CLIP_SHARE)
    )
    if adapter is None:
        return UNSET
    return Policies(adapter_grad_norm=adapter, second_grad_norm=second, cooperative_gain=gain, clip_share=share)


def staged_of(loop: Loop) -> Staged | None:
    """The demonstrations in the updates of this step; None if there were none."""
    if loop.mixed is None or loop.trained is None:
        return None
    examples = [entry.example for entry, _ in loop.trained.uses]
    return Staged(
        demonstrations=len(examples),
        without_rl=len(loop.mixed.without_rl),
        prompt_tokens=sum(len(example.prompt_ids) for example in examples),
        response_tokens=sum(len(example.response_ids) for example in examples),
        kept_tokens=sum(kept for _, kept in loop.trained.uses),
        loss=loop.trained.loss,
        ledger_sha256=lines_sha256(line.line() for line in loop.update_lines),
    )


def step_events(
    rl: StepEnded | None,
    loop: Loop,
    timing_raw: Mapping[str, float],
    metrics: dict[str, Any],
    take_save_seconds: Callable[[], float],
    wall_seconds: float,
    start: Timers,
) -> list[Event]:
    """What has happened in a step, in the order of its records, with what verl has measured of it.

    ``wall_seconds``: since the record before, or the first step's begin; ``start``: the seconds of what came before.
    ``rl`` is None if the step made no rollouts; if a process before this one was stopped inside the step's SFT phase,
    the phase has brought the record along.
    """
    phase, events, accuracy = loop.ended, list[Event](), accuracy_by_source(metrics)
    probe = {"probe": timing_raw["probe"]} if "probe" in timing_raw else {}
    own = (rl.seconds if rl is not None else {}) | probe | {"checkpoint": take_save_seconds()}
    known = sum(step_seconds({"seconds": own}).values()) + (timing_raw["sft"] if phase is not None else 0.0)
    beside = start | {"checkpoint": own["checkpoint"], OTHER: max(0.0, wall_seconds - known)}
    if rl is None and phase is not None and phase.rl_line is not None:
        rl = phase.rl_line
        probe = {"probe": rl.seconds.get("probe", 0.0) + timing_raw.get("probe", 0.0)}
    if rl is not None:
        seconds = rl.seconds | probe | beside
        metrics["mifo/rl/buffer_size"] = len(loop.state.buffer)
        metrics["mifo/rl/fallback_share"] = rl.fallback_share or 0.0
        events.append(structs.replace(rl, seconds=seconds, validation=accuracy or None))
        events += loop.rl_lines or (phase.rl_ledger if phase is not None else [])
        events += loop.samples or (phase.rl_samples if phase is not None else [])
    if phase is not None:
        events += phase.timed_updates(timing_raw["sft"], probe | beside if rl is None else {})
        events += phase.ledger
    if accuracy:
        events.append(Validated(step=loop.state.step + 1, accuracy=accuracy))
    numbers: dict[str, float] = {}
    for event in events:
        numbers |= tracked(event) if isinstance(event, StepEnded | UpdateMade) else {}
    metrics.update((name, value) for name, value in numbers.items() if name not in metrics)  # means of a phase stay
    return events


_NOT_TRACKED = ("step", "phase", "update", "prompts", "mask", "inspection")


def tracked(record: StepEnded | UpdateMade) -> dict[str, float]:
    """Every number of a record for verl's trackers, by its name in the record: ``mifo/rl/accuracy``.

    Of an RL step also how many prompts no rollout and every rollout has solved.
    """
    line, found = record.line(), dict[str, float]()
    prompts = line.get("prompts", [])
    solved = [Fraction(num_correct, num_rollouts) for _, num_correct, num_rollouts in prompts if num_rollouts]
    line |= (
        {"prompts_unsolved": solved.count(Fraction(0)), "prompts_solved": solved.count(Fraction(1))} if prompts else {}
    )
    todo = [(f"mifo/{record.phase}/{name}", value) for name, value in line.items() if name not in _NOT_TRACKED]
    while todo:
        name, value = todo.pop()
        if isinstance(value, Mapping):
            todo += [(f"{name}/{key}", held) for key, held in value.items()]
        elif isinstance(value, int | float):
            found[name] = value
    return found


def sft_metrics(phase: SftProgress) -> dict[str, float]:
    """An SFT phase that has ended, as verl's trackers see it."""
    updates, mask = phase.updates, phase.mask
    metrics: dict[str, float] = {
        "mifo/sft/loss": fmean(update.loss for update in updates),
        "mifo/sft/grad_norm": fmean(update.grad_norm for update in updates),
        f"mifo/sft/{MAX_SKIPPED}": max(update.skipped_updates for update in updates),
        "mifo/sft/kept_share": sum(u.kept_tokens for u in updates) / sum(u.response_tokens for u in updates),
        "mifo/sft/demonstrations": len({line.prompt_id for line in phase.ledger}),
        "mifo/sft/interval": updates[0].interval,
    }
    for name in ("grad_norm_ratio", "rl_step_factor"):
        if (value := getattr(updates[-1], name)) not in (None, UNSET):
            metrics[f"mifo/sft/{name}"] = value
    if mask is not None:
        metrics["mifo/sft/frozen_share"] = mask["frozen_share"]
        if mask["threshold"] is not None:
            metrics["mifo/sft/threshold"] = mask["threshold"]
    return metrics


def end_of_run(state: LoopState, accuracy: dict[str, float], actor: Actor, cost: RlCost) -> dict[str, Any]:
    """What only the end of a run knows for its summary."""
    shards = "".join(actor.weights_sha256())
    return {
        "accuracy_start": state.accuracy_start,
        "accuracy_end": accuracy,
        "weights_sha256": hashlib.sha256(shards.encode()).hexdigest(),
        "num_weights": cost.num_weights,
        "peak_memory_gb": actor.peak_memory_gb(),
        "seconds_before": state.elapsed_seconds,
    }


def accuracy_by_source(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Validation accuracy of every data source among verl's metrics, and their mean; empty if none are there."""
    start, mark = "val-core/", "/acc/mean@"
    names = (name for name in metrics if name.startswith(start) and mark in name)
    return mean_by_source((name.removeprefix(start).split(mark)[0], float(metrics[name])) for name in names)


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    return float(metrics[name]) if name in metrics else None
