"""The probes in whole runs: every phase has its numbers, and they change nothing.

That a run stopped inside an SFT phase goes on with what was measured before it is in test_kills.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.faults.__main__ import RUN, trace

OFF = ["mifo.probe.around_sft=false", "mifo.probe.kl_to_start=false"]
AROUND_SFT = ("accuracy", "solved_accuracy", "hard_accuracy", "cross_entropy", "policy_entropy", "reward_margin")
PROBES = {f"{name}_{side}" for name in AROUND_SFT for side in ("before", "after")}
PROBES |= {"kl_to_before", "kl_to_start", "kl_tokens", "probe"}


def lines_of(folder: Path, phase: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["phase"] == phase]


def test_every_phase_has_its_numbers_and_what_ends_one_begins_the_next(whole_run):
    ends = [line for line in lines_of(whole_run, "sft") if "accuracy_before" in line]
    assert len(ends) >= 2
    for line in ends:
        assert {f"{name}_{side}" for name in AROUND_SFT for side in ("before", "after")} <= set(line)
        assert line["kl_to_before"] > 0.0 and line["probe"]["hard"] > 0 and line["hard_accuracy_before"] is not None
        assert line["seconds"]["sft"] > 0.0
    rl = {line["interval"]: line for line in lines_of(whole_run, "rl") if "cross_entropy_before" in line}
    sft = {line["interval"]: line for line in ends}
    assert set(rl) == set(sft)
    for interval, line in rl.items():
        assert line["seconds"]["probe"] > 0.0
        assert line["cross_entropy_after"] == sft[interval]["cross_entropy_before"]
        if interval > 1:
            assert line["cross_entropy_before"] == sft[interval - 1]["cross_entropy_after"]
    summary = json.loads((whole_run / "summary.json").read_text())
    rises = [line["cross_entropy_after"] - line["cross_entropy_before"] for line in rl.values()]
    assert summary["coupling"]["total"]["rl_raised_cross_entropy"] == pytest.approx(sum(rises))
    assert 0.0 < summary["probes"]["share_of_seconds"] < 1.0


def test_without_probes_the_weights_the_ledger_and_every_other_field_are_the_same(whole_run, tmp_path):
    forks.train([*RUN, f"run_dir={tmp_path / 'plain'}", *OFF], tmp_path / "plain.log")
    plain, full = trace(tmp_path / "plain"), trace(whole_run)
    assert (plain["weights"], plain["ledger"]) == (full["weights"], full["ledger"])
    for own, other in zip(plain["metrics"], full["metrics"], strict=True):
        assert {k: v for k, v in own.items() if k not in PROBES} == {k: v for k, v in other.items() if k not in PROBES}
