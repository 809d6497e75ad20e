"""The numbers that the report's words and tables name, each computed from the records alone."""

from statistics import fmean

from mifo_verl.probes import cost as probe_cost
from mifo_verl.probes.coupling import asked_of
from mifo_verl.tools.parts import part_of
from mifo_verl.tools.report.run import Run

Number = int | float | None


def numbers(run: Run) -> dict[str, Number]:
    """Every number by its name; None if the run has not recorded it."""
    ends = [phase[-1] for phase in run.phases]
    masks = [line["mask"] for line in ends if line.get("mask")]
    probes = run.probes
    changed = probes["change"][(probes["phase"] == "sft") & (probes["name"] == "accuracy")].tolist()
    points = run.validations
    last = max((step for step in points if step > 0), default=None)
    found: dict[str, Number] = {
        "rl_steps": len(run.rl),
        "sft_phases": len(ends),
        "sft_updates": len(run.sft),
        "buffer_size": getattr(part_of(run.config, "schedule"), "buffer_limit", None),
        "accuracy_start": points.get(0),
        "accuracy_end": None if last is None else points[last],
        "accuracy_step": last,
        "probed_phases": len(changed),
        "mean_change": fmean(changed) if changed else None,
        "worst_change": min(changed, default=None),
        "phases_down": sum(one < 0 for one in changed),
        "masked_phases": len(masks),
        "frozen_drift": max((drift for line in ends if (drift := line.get("frozen_drift")) is not None), default=None),
    }
    if masks:
        found["coordinates"] = masks[-1]["num_coordinates"]
        found["frozen_share"] = sum(mask["num_frozen"] for mask in masks) / sum(m["num_coordinates"] for m in masks)
        found["last_frozen"] = masks[-1]["num_frozen"]
        found["last_threshold"] = masks[-1]["threshold"]
    return found | _seconds(run) | _won(run) | _data(run)


def _seconds(run: Run) -> dict[str, Number]:
    """Of the records; the whole run's, if it has ended."""
    blocks = run.seconds.groupby("block")["seconds"].sum()
    rl, sft = float(blocks.get("RL", 0.0)), float(blocks.get("SFT", 0.0))
    total = run.files.summary["seconds"]["total"] if run.files.summary else float(blocks.sum())
    return {
        "seconds_rl": rl,
        "seconds_sft": sft,
        "seconds_total": total,
        "sft_time_share": sft / total if total else None,
        **{f"probes_{name}": value for name, value in probe_cost.measured(run.rl + run.sft, total).items()},
    }


def _won(run: Run) -> dict[str, Number]:
    """Of the prompts that were asked around SFT phases: how many of each kind, how many more were right after it.

    ``held_out_asked`` is the number of held-out prompts, the same in every phase.
    """
    asked = asked_of(run.sft)
    sizes = [size for line in run.sft if (size := (line.get("probe") or {}).get("held_out"))]
    found: dict[str, Number] = {"held_out_asked": max(sizes, default=None)}
    for kind in ("solved", "hard"):
        found |= {f"{kind}_asked": None, f"{kind}_won": None}
        if count := asked.get(f"{kind}_asked"):
            found |= {f"{kind}_asked": int(count), f"{kind}_won": round(count * asked[f"sft/{kind}_accuracy"], 6)}
    return found


def _data(run: Run) -> dict[str, Number]:
    counts = {name: value for name, value in vars(run.account).items() if name != "uses"}
    counts["distinct_demonstrations"] = run.account.distinct_sft_prompts
    tokens = run.account.response_tokens
    return counts | {
        "most_uses": max(run.account.uses, default=0),
        "kept_share": run.account.kept_tokens / tokens if tokens else None,
    }
