"""The numbers that the report's words and tables name, each computed from the records alone."""

from mifo_verl.probes import cost as probe_cost
from mifo_verl.probes.coupling import asked_of
from mifo_verl.tools.ledger.shapes import lookup
from mifo_verl.tools.report.run import Run, changes, split_seconds

Number = int | float | None


def numbers(run: Run) -> dict[str, Number]:
    """Every number by its name; None where the run has not recorded it."""
    phases = run.phases()
    found: dict[str, Number] = {
        "rl_steps": len(run.rl),
        "sft_phases": len(phases),
        "sft_updates": len(run.sft),
        "buffer_size": lookup(run.config, "mifo.schedule.size"),
        **_seconds(run),
        **_accuracy(run),
        **_data(run),
    }
    found |= _won(run)
    changed = [one for _, one in changes(run, "sft", "accuracy")]
    found["probed_phases"] = len(changed)
    found["mean_change"] = sum(changed) / len(changed) if changed else None
    found["worst_change"] = min(changed, default=None)
    found["phases_down"] = sum(one < 0 for one in changed)
    masks = [phase[-1]["mask"] for phase in phases if phase[-1].get("mask")]
    found["masked_phases"] = len(masks)
    if masks:
        found["coordinates"] = masks[-1]["num_coordinates"]
        found["frozen_share"] = sum(mask["num_frozen"] for mask in masks) / sum(m["num_coordinates"] for m in masks)
        found["last_frozen"] = masks[-1]["num_frozen"]
        found["last_threshold"] = masks[-1]["threshold"]
    drifts = [phase[-1]["frozen_drift"] for phase in phases if phase[-1].get("frozen_drift") is not None]
    found["frozen_drift"] = max(drifts, default=None)
    return found


def _seconds(run: Run) -> dict[str, Number]:
    """Of the records; the whole run's, where it has ended."""
    rl, sft = (sum(split_seconds(line)[0] for line in lines) for lines in (run.rl, run.sft))
    recorded = sum(sum(split_seconds(line)) for line in run.rl + run.sft)
    total = run.files.summary["seconds"]["total"] if run.files.summary else recorded
    return {
        "seconds_rl": rl,
        "seconds_sft": sft,
        "seconds_total": total,
        "sft_time_share": sft / total if total else None,
        **{f"probes_{name}": value for name, value in probe_cost.measured(run.rl + run.sft, total).items()},
    }


def _accuracy(run: Run) -> dict[str, Number]:
    """Validation accuracy of the start and of the last validation after it; None where there was none."""
    points = dict(run.validations())
    last = max((step for step in points if step > 0), default=None)
    return {
        "accuracy_start": points.get(0),
        "accuracy_end": None if last is None else points[last],
        "accuracy_step": last,
    }


def _won(run: Run) -> dict[str, Number]:
    """Of the prompts that were asked around SFT phases: how many of each kind, how many more were right after it.

    ``held_out_asked`` is the number of held-out prompts, the same in every phase.
    """
    asked = asked_of(run.sft)
    found: dict[str, Number] = {}
    for kind in ("solved", "hard"):
        if count := asked.get(f"{kind}_asked"):
            found |= {f"{kind}_asked": int(count), f"{kind}_won": round(count * asked[f"sft/{kind}_accuracy"], 6)}
    sizes = [size for line in run.sft if (size := (line.get("probe") or {}).get("held_out"))]
    found["held_out_asked"] = max(sizes, default=None)
    return found


def _data(run: Run) -> dict[str, Number]:
    data = run.account
    return {
        "demonstrations": data.demonstrations,
        "distinct_demonstrations": data.distinct_sft_prompts,
        "most_uses": max(data.uses, default=0),
        "response_tokens": data.response_tokens,
        "kept_tokens": data.kept_tokens,
        "kept_share": data.kept_tokens / data.response_tokens if data.response_tokens else None,
        "rollouts": data.rollouts,
        "rl_prompts": data.rl_prompts,
        "distinct_rl_prompts": data.distinct_rl_prompts,
        "rows": data.rows,
        "rows_with_demonstration": data.rows_with_demonstration,
        "share_of_demonstrations": data.share_of_demonstrations,
        "share_of_prompts": data.share_of_prompts,
    }
