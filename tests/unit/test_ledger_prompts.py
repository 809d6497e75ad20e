"""The RL half of the account: ``prompts.jsonl`` against the records of the RL steps, the data set and the ledger."""

from pathlib import Path

import pytest

from mifo_verl.run.journal import lines_sha256
from mifo_verl.tools.ledger.__main__ import main
from mifo_verl.tools.ledger.audit import audit
from mifo_verl.tools.run_files import read_run
from tests.unit.example_run import faults_after, lines_of, write_lines


def changed(run: Path, change, name: str = "prompts.jsonl") -> list[str]:
    return faults_after(run, change, name)


def kill(run: Path, step: int) -> None:
    """What a run leaves that was killed after the RL step, before its SFT phase."""
    (run / "summary.json").unlink()
    for name in ("metrics.jsonl", "prompts.jsonl", "ledger.jsonl"):
        before = [line for line in lines_of(run / name) if line["step"] < step]
        own = [line for line in lines_of(run / name) if line["step"] == step and line.get("phase") != "sft"]
        write_lines(run / name, before + (own if name != "ledger.jsonl" else []))


def test_a_doubled_line_is_found(run: Path):
    assert changed(run, lambda lines: [*lines[:3], *lines[2:]]) == [
        "prompts of step 3: 2 lines, and every RL step has one"
    ]


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_line_that_is_missing_is_found(run: Path, place: int):
    step = lines_of(run / "prompts.jsonl")[place]["step"]
    faults = changed(run, lambda lines: lines.pop(place) and None)
    assert f"prompts of step {step}: 0 lines, and every RL step has one" in faults


def test_a_line_of_no_step_is_found(run: Path):
    def invent(lines):
        lines.append(lines[-1] | {"step": 13})

    assert changed(run, invent) == ["prompts of step 13: metrics has no such RL step"]


def test_prompts_that_are_gone_from_a_step_are_found(run: Path):
    record = lines_of(run / "metrics.jsonl")[0]
    correct = lines_of(run / "prompts.jsonl")[0]["prompts"][0][1]

    def keep_one(lines):
        lines[0]["prompts"] = lines[0]["prompts"][:1]

    assert changed(run, keep_one)[:2] == [
        "prompts of step 1: rollouts is 8 by prompts.jsonl, 32 in metrics",
        f"prompts of step 1: accuracy is {correct / 8} by prompts.jsonl, {record['accuracy']} in metrics",
    ]


@pytest.mark.parametrize(("field", "value"), [("rollouts", 33), ("accuracy", 0.1), ("accuracy", None), ("interval", 7)])
def test_a_record_that_is_not_of_its_prompts_is_found(run: Path, field: str, value: float | None):
    old = lines_of(run / "metrics.jsonl")[0][field]

    def alter(lines):
        lines[0][field] = value

    assert f"prompts of step 1: {field} is {old} by prompts.jsonl, {value} in metrics" in changed(
        run, alter, "metrics.jsonl"
    )


def test_a_step_whose_rollouts_all_failed_has_no_accuracy_and_no_fault(run: Path):
    last = lines_of(run / "prompts.jsonl")[-1]
    assert all(line["step"] < last["step"] for line in lines_of(run / "ledger.jsonl"))
    changed(run, lambda lines: lines[-1].update(prompts=[]))
    metrics = lines_of(run / "metrics.jsonl")
    next(line for line in metrics if line["step"] == last["step"]).update(rollouts=0, accuracy=None)
    write_lines(run / "metrics.jsonl", metrics)
    assert audit(read_run(run)) == []


def test_a_prompt_that_lost_rollouts_leaves_the_demonstration_of_its_whole_ones(run: Path):
    """Step 3 draws a prompt of the buffer again, and two of its rollouts fail: the buffer keeps what it has."""
    use = lines_of(run / "ledger.jsonl")[0]
    prompts, metrics = lines_of(run / "prompts.jsonl"), lines_of(run / "metrics.jsonl")
    record = next(line for line in metrics if line["step"] == use["step"])
    own = prompts[use["step"] - 1]
    assert use["prompt_id"] not in [prompt[0] for prompt in own["prompts"]]
    own["prompts"].append([use["prompt_id"], 5, 6])
    record |= {"rollouts": 38, "accuracy": sum(prompt[1] for prompt in own["prompts"]) / 38}
    write_lines(run / "metrics.jsonl", metrics)
    write_lines(run / "prompts.jsonl", prompts)
    assert audit(read_run(run)) == []


def test_a_prompt_that_the_data_set_lacks_is_found(run: Path, capsys):
    used = {line["prompt_id"] for line in lines_of(run / "ledger.jsonl")}

    def alter(lines):
        next(prompt for line in lines for prompt in line["prompts"] if prompt[0] not in used)[0] = "nowhere"

    assert changed(run, alter) == []
    assert main([str(run)]) == 1
    assert "prompt nowhere is not in the data set" in capsys.readouterr().out


def test_prompts_that_are_gone_are_a_fault_where_the_run_wrote_them(run: Path):
    (run / "prompts.jsonl").unlink()
    assert audit(read_run(run)) == ["prompts.jsonl is missing, and there are 12 RL steps in metrics"]
    rl = [line | {"prompt_tokens": 9} for line in lines_of(run / "metrics.jsonl") if line["phase"] == "rl"][:2]
    write_lines(run / "metrics.jsonl", rl)
    (run / "ledger.jsonl").unlink()
    (run / "summary.json").unlink()
    assert audit(read_run(run)) == ["prompts.jsonl is missing, and there are 2 RL steps in metrics"]


def test_a_run_without_rl_needs_no_prompts(run: Path, capsys):
    """SFT on the data set's own: no rollouts and no counts."""
    (run / "prompts.jsonl").unlink()
    (run / "summary.json").unlink()
    uses = [line | {"num_correct": None, "num_rollouts": None} for line in lines_of(run / "ledger.jsonl")]
    write_lines(run / "ledger.jsonl", uses)
    metrics = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "sft"]
    for line in metrics:
        part, uses = uses[: line["demonstrations"]], uses[line["demonstrations"] :]
        line["ledger_sha256"] = lines_sha256(part)
    write_lines(run / "metrics.jsonl", metrics)
    assert main([str(run)]) == 0
    assert "not recorded" not in capsys.readouterr().out


def test_a_run_that_was_killed_between_prompts_and_record_has_no_fault_and_is_named(run: Path, capsys):
    kill(run, 8)
    assert changed(run, lambda lines: [line for line in lines if line["step"] < 8], "metrics.jsonl") == []
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "the RL record of step 8 is not written yet, and its prompts are not verified" in out
    assert out.splitlines()[-1] == "verified: 13 uses in 4 SFT updates, the prompts of 7 RL steps, no fault"


def test_of_two_steps_without_a_record_only_the_last_can_be_the_kill(run: Path):
    kill(run, 8)
    faults = changed(run, lambda lines: [line for line in lines if line["step"] < 7], "metrics.jsonl")
    assert "prompts of step 7: metrics has no such RL step" in faults
    assert not any("step 8" in fault for fault in faults)
