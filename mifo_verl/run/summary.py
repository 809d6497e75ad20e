"""``summary.json`` at the end of a run, from its records: its numbers are theirs."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mifo_verl.probes import cost as probe_cost
from mifo_verl.probes.coupling import coupling, mean_of
from mifo_verl.run.journal import (
    END,
    LEDGER,
    METRICS,
    RL_STAGES,
    START_UP,
    SUMMARY,
    read_lines,
    step_seconds,
    write_json,
)


def finish_summary(folder: Path, total_seconds: float) -> dict[str, Any]:
    """Complete ``summary.json`` from the records, so that its numbers are theirs; returns the table."""
    lines, uses = read_lines(folder / METRICS), read_lines(folder / LEDGER)
    table = json.loads((folder / SUMMARY).read_text())
    total = total_seconds + table.pop("seconds_before", 0.0)
    table |= {"coupling": coupling(lines), "probes": probe_cost.measured(lines, total)} | totals(lines, uses)
    table["seconds"] |= {"overhead": total - sum(table["seconds"].values()), "total": total}
    stages = Counter[str]()
    for line in lines:
        stages.update(step_seconds(line))
    table["stages"] = dict(stages.most_common()) | {END: max(0.0, total - stages.total())}
    write_json(folder / SUMMARY, table)
    return table


def totals(lines: Sequence[dict[str, Any]], uses: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the records and the lines of the ledger give of a summary."""
    rl, sft = ([line for line in lines if line["phase"] == phase] for phase in ("rl", "sft"))
    updates: dict[int, list[dict[str, Any]]] = {}
    for line in sft:
        updates.setdefault(line["interval"], []).append(line)
    phases = [_phase(line, updates[line["interval"]]) for line in sft if "accuracy_before" in line]
    used = [use["demonstration_sha256"] for use in uses]
    stages = [step_seconds(line).get(stage, 0.0) for line in rl for stage in RL_STAGES]
    starts = [line["seconds"][START_UP] for line in lines if START_UP in line["seconds"]]
    return {
        "rl_steps": len(rl),
        "sft_updates": len(sft),
        "intervals": len(phases),
        "sft_phases": phases,
        "demonstrations": len(used),
        "distinct_demonstrations": len(set(used)),
        "seconds": {"rl": sum(stages), "sft": sum(line["seconds"]["sft"] for line in sft)}
        | ({START_UP: sum(starts)} if starts else {}),
    }


def _phase(last: dict[str, Any], updates: list[dict[str, Any]]) -> dict[str, Any]:
    """One SFT phase as a row of the table, from its last record and all records of the interval."""
    return {
        "interval": last["interval"],
        "step": last["step"],
        "accuracy_before": mean_of(last.get("accuracy_before")),
        "accuracy_after": mean_of(last.get("accuracy_after")),
        "frozen_share": last["frozen_share"],
        "kept_tokens": sum(line["kept_tokens"] for line in updates),
        "response_tokens": sum(line["response_tokens"] for line in updates),
        "demonstrations": sum(line["demonstrations"] for line in updates),
    }
