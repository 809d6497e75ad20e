"""The ledger's account, and an audit that finds a line that is missing, doubled or altered in any field."""

import functools
import json
import operator
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mifo_verl.run.journal import lines_sha256
from mifo_verl.run.summary import totals
from mifo_verl.tools.ledger.__main__ import main
from mifo_verl.tools.ledger.account import DataSet, account, count, find_files, hashes
from mifo_verl.tools.ledger.audit import audit, audit_hashes, prompt_ids
from mifo_verl.tools.records import LedgerLine
from mifo_verl.tools.report.__main__ import main as report
from mifo_verl.tools.run_files import read_run
from tests.unit.example_run import ExampleRun, faults_after, lines_of, make_data, write_lines


def changed(run: Path, change, name: str = "ledger.jsonl") -> list[str]:
    return faults_after(run, change, name)


def test_a_run_as_it_was_made_has_no_fault(run: Path, capsys):
    assert audit(read_run(run)) == []
    assert main([str(run)]) == 0
    assert "verified" in capsys.readouterr().out


def test_the_account_counts_what_the_lines_say(run: Path):
    found = account(read_run(run), None)
    lines = lines_of(run / "ledger.jsonl")
    assert found.demonstrations == len(lines) > 12
    assert found.distinct_sft_prompts == len({line["prompt_id"] for line in lines})
    assert found.kept_tokens == sum(line["kept_tokens"] for line in lines)
    assert sum(uses * number for uses, number in found.uses.items()) == len(lines)
    assert (found.rl_prompts, found.rollouts) == (12 * 4, 12 * 4 * 8)
    assert found.distinct_rl_prompts == 48  # 48 of the 60 rows, each once


def test_of_a_large_data_set_the_rows_alone_are_counted(run: Path):
    files = find_files(read_run(run).config, run)
    assert count(files, most_bytes=10) == DataSet(60, None)
    assert account(read_run(run), count(files, most_bytes=10)).share_of_demonstrations is None


def test_shares_are_of_the_data_set(run: Path):
    files = find_files(read_run(run).config, run)
    found = account(read_run(run), count(files))
    assert found.rows == found.rows_with_demonstration == 60
    assert found.share_of_prompts == 48 / 60
    assert found.share_of_demonstrations == found.distinct_sft_prompts / 60


@pytest.mark.parametrize("field", LedgerLine.__struct_fields__)
def test_a_change_of_any_field_is_found(run: Path, field: str):
    def alter(lines):
        old = lines[3][field]
        lines[3][field] = old + 1 if isinstance(old, int) else old[:-1] + ("0" if old[-1] != "0" else "1")

    assert changed(run, alter)
    assert main([str(run)]) == 1


@pytest.mark.parametrize("field", ["num_correct", "num_rollouts"])
def test_a_count_that_could_be_true_is_found_by_the_digest_alone(run: Path, field: str):
    (run / "prompts.jsonl").unlink()

    def alter(lines):
        line = next(line for line in lines if line["num_correct"] == 0)
        line["num_correct"] = 1

    faults = changed(run, alter)
    assert len(faults) == 2 and "digest" in faults[0] and "prompts.jsonl is missing" in faults[1]


def test_a_count_that_is_not_of_the_newest_rollouts_is_found_without_digests(run: Path):
    metrics = lines_of(run / "metrics.jsonl")
    write_lines(run / "metrics.jsonl", [{k: v for k, v in line.items() if k != "ledger_sha256"} for line in metrics])

    def alter(lines):
        line = next(line for line in lines if line["num_correct"] == 0)
        line["num_correct"] = 1

    faults = changed(run, alter)
    assert len(faults) == 1 and "not the newest rollouts" in faults[0]


@pytest.mark.parametrize("place", [0, 4, -1])
def test_a_line_that_is_missing_is_found(run: Path, place: int):
    assert any("demonstrations in metrics" in fault for fault in changed(run, lambda lines: lines.pop(place) and None))


def test_in_a_phase_that_ended_early_a_demonstration_may_miss_passes_and_have_no_use_too_many(run: Path):
    config = yaml.safe_load((run / "config.yaml").read_text())

    def faults_of(passes: int) -> list[str]:
        config["mifo"]["sft"]["passes"] = passes
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        return [fault for fault in audit(read_run(run)) if "passes" in fault]

    def end_early(lines):
        for line in lines:
            line.update({"updates_left": 1} if "accuracy_before" in line else {})

    assert all("is used 1 times in 2 passes" in fault for fault in faults_of(2)) and faults_of(2)
    changed(run, end_early, "metrics.jsonl")
    assert faults_of(2) == [] and faults_of(0)


@pytest.mark.parametrize("place", [0, 4, -1])
def test_a_line_that_is_doubled_is_found(run: Path, place: int):
    def double(lines):
        lines.insert(place % len(lines), dict(lines[place]))

    assert any("demonstrations in metrics" in fault for fault in changed(run, double))


def test_lines_that_changed_places_are_found(run: Path):
    def swap(lines):
        lines[0], lines[1] = lines[1], lines[0]

    assert any("digest" in fault for fault in changed(run, swap))


def test_a_doubled_use_in_place_of_another_is_found_without_digests(run: Path):
    metrics = lines_of(run / "metrics.jsonl")
    write_lines(run / "metrics.jsonl", [{k: v for k, v in line.items() if k != "ledger_sha256"} for line in metrics])

    def twice(lines):
        lines[1] = dict(lines[0])

    assert any("is used 2 times" in fault for fault in changed(run, twice))


@pytest.mark.parametrize("field", ["demonstrations", "response_tokens", "kept_tokens", "step", "interval"])
def test_a_change_of_an_updates_record_is_found(run: Path, field: str):
    def alter(lines):
        next(line for line in lines if line["phase"] == "sft")[field] += 1

    assert changed(run, alter, "metrics.jsonl")


def test_an_update_that_is_missing_from_both_files_is_found(run: Path):
    metrics, ledger = lines_of(run / "metrics.jsonl"), lines_of(run / "ledger.jsonl")
    update = next(line for line in metrics if line["phase"] == "sft")
    write_lines(run / "ledger.jsonl", ledger[update["demonstrations"] :])
    faults = changed(run, lambda lines: lines.remove(update), "metrics.jsonl")
    assert any("not complete and in order" in fault for fault in faults)


def test_a_phase_that_is_missing_from_both_files_is_found(run: Path):
    write_lines(run / "ledger.jsonl", [line for line in lines_of(run / "ledger.jsonl") if line["interval"] != 2])
    faults = changed(
        run, lambda lines: [x for x in lines if (x["phase"], x["interval"]) != ("sft", 2)], "metrics.jsonl"
    )
    assert "metrics: no SFT update of interval 2" in faults


def altered(run: Path, key: str, value: Any) -> list[str]:
    """The faults after one field of the summary got another value: ``key`` is dotted, a number is a row of a list."""
    summary = json.loads((run / "summary.json").read_text())
    *way, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    held = functools.reduce(operator.getitem, way, summary)
    held[last] = value
    (run / "summary.json").write_text(json.dumps(summary))
    return audit(read_run(run))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rl_steps", 11, "summary: rl_steps is 11, and the records say 12"),
        ("sft_updates", 7, "summary: sft_updates is 7, and the records say 6"),
        ("intervals", 2, "summary: intervals is 2, and the records say 3"),
        ("demonstrations", 18, "summary: demonstrations is 18, and the records say 19"),
        ("distinct_demonstrations", 1, "summary: distinct_demonstrations is 1, and the records say "),
        ("seconds.rl", 20.0, "summary, seconds: rl is 20.0, and the records say 21.0"),
        ("seconds.sft", 2.0, "summary, seconds: sft is 2.0, and the records say 1.5"),
        ("sft_phases.0.kept_tokens", 0, "summary, interval 1: kept_tokens is 0, and the records say "),
        ("sft_phases.2.demonstrations", 7, "summary, interval 3: demonstrations is 7, and the records say 6"),
        ("sft_phases.1.accuracy_after", 0.9, "summary, interval 2: accuracy_after is 0.9, and the records say "),
        ("sft_phases.1.frozen_share", 0.5, "summary, interval 2: frozen_share is 0.5, and the records say 0.48"),
        ("sft_phases.1.interval", 1, "summary: the 3 sft_phases are not the 3 of the records"),
        ("sft_phases", [], "summary: the 0 sft_phases are not the 3 of the records"),
        (
            "accuracy_start.mean",
            0.2,
            "summary: accuracy_start is {'a': 0.25, 'mean': 0.2}, and the validation of step 0",
        ),
        ("accuracy_end.mean", 0.6, "summary: accuracy_end is {'a': 0.5, 'mean': 0.6}, and the validation of step 12"),
    ],
)
def test_a_summary_that_says_something_else_is_found(run: Path, key: str, value: Any, said: str):
    (fault,) = altered(run, key, value)
    assert fault.startswith(said)


def test_a_validation_that_is_missing_doubled_or_altered_is_found(run: Path):
    recorded = "{'a': 0.375, 'mean': 0.375} in metrics"
    others = "validation: the steps are not in order, or one is there twice"
    lines = lines_of(run / "validation.jsonl")
    assert [line["step"] for line in lines] == [0, 6, 12]
    for changed_lines, said in (
        ([lines[0], lines[2]], [f"validation of step 6: None in validation.jsonl, {recorded}"]),
        ([lines[0], lines[1] | {"accuracy": {"mean": 0.4}}, lines[2]],
         [f"validation of step 6: {{'mean': 0.4}} in validation.jsonl, {recorded}"]),
        ([lines[0], *lines], [others]),
        ([lines[1], lines[0], lines[2]], [others]),
    ):  # fmt: skip
        write_lines(run / "validation.jsonl", changed_lines)
        assert audit(read_run(run)) == said


def test_a_validation_whose_line_is_not_written_yet_is_no_fault_of_the_last_step(run: Path):
    (run / "summary.json").unlink()
    assert changed(run, lambda lines: lines[:-1], "validation.jsonl") == []
    assert len(changed(run, lambda lines: lines[:1], "validation.jsonl")) == 1


def test_a_run_that_goes_on_from_another_run_s_checkpoint_is_verified_from_there(run: Path, capsys):
    """After step 7, in the middle of interval 3, whose buffer holds prompts of step 6 and 7."""
    newest = {prompt[0]: prompt for line in lines_of(run / "prompts.jsonl")[:7] for prompt in line["prompts"]}
    (run / "summary.json").unlink()
    for name in ("metrics.jsonl", "prompts.jsonl", "ledger.jsonl", "validation.jsonl"):
        write_lines(run / name, [line for line in lines_of(run / name) if line["step"] > 7])
    assert "metrics: no record of step 1, 2, 3, 4, 5, 6, 7" in audit(read_run(run))
    assert sum("are not the newest rollouts" in fault for fault in audit(read_run(run))) > 0
    origin = {"checkpoint": "a/global_step_7", "step": 7, "interval": 3, "prompts": list(newest.values())}
    (run / "origin.json").write_text(json.dumps(origin))
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "the run goes on from a/global_step_7: what came before step 8 is not in its records" in out
    assert "verified: 6 uses in 2 SFT updates, the prompts of 5 RL steps, no fault" in out
    assert "metrics: no record of step 8" in changed(run, lambda lines: lines[1:], "metrics.jsonl")
    (run / "origin.json").write_text(json.dumps(origin | {"prompts": [["q", 1]]}))
    assert audit(read_run(run)) == ["origin.json: Expected `array` of length 3, got 2 - at `$.prompts[0]`"]


def test_another_data_set_is_found(run: Path, tmp_path: Path, capsys):
    other = make_data(tmp_path / "other", rows=5)
    assert main([str(run), f"data={other}"]) == 1
    assert "is not in the data set" in capsys.readouterr().out


def test_a_demonstration_with_another_text_is_found(run: Path):
    files = read_run(run)
    found = hashes(find_files(files.config, run), prompt_ids(files))
    assert audit_hashes(files, found) == []
    prompt_id = files.ledger[2]["prompt_id"]
    assert len(audit_hashes(files, found | {prompt_id: {"0" * 64}})) == sum(
        line["prompt_id"] == prompt_id for line in files.ledger
    )


def test_a_line_that_is_no_json_is_a_fault_and_a_torn_last_line_is_none(run: Path):
    ledger = run / "ledger.jsonl"
    ledger.write_text(ledger.read_text() + '{"interval": 9, "st')
    assert audit(read_run(run)) == []
    ledger.write_text("{]\n" + ledger.read_text())
    assert audit(read_run(run)) == ["ledger.jsonl line 1: no JSON (Expecting property name enclosed in double quotes)"]


def test_a_run_that_was_killed_between_ledger_and_records_has_no_fault(made: Path, tmp_path: Path):
    run = ExampleRun(tmp_path / "run", Path(read_run(made).config["data"]["train_files"])).run(12, finish=False)
    last = max(line["interval"] for line in lines_of(run / "ledger.jsonl"))
    metrics = lines_of(run / "metrics.jsonl")
    gone = next(place for place, line in enumerate(metrics) if (line["phase"], line["interval"]) == ("sft", last))
    write_lines(run / "metrics.jsonl", metrics[:gone])
    write_lines(run / "prompts.jsonl", lines_of(run / "prompts.jsonl")[: metrics[gone]["step"]])
    assert audit(read_run(run)) == []


@pytest.mark.parametrize("interval", [1, -1])
def test_a_phase_without_lines_is_a_fault_where_rl_went_on_after_it(run: Path, interval: int):
    (run / "summary.json").unlink()
    metrics = lines_of(run / "metrics.jsonl")
    phases = [line["interval"] for line in metrics if line["phase"] == "sft"]
    gone = phases[-1] if interval == -1 else interval
    assert max(line["interval"] for line in metrics if line["phase"] == "rl") == phases[-1] + 1
    count = sum(line["demonstrations"] for line in metrics if line["phase"] == "sft" and line["interval"] == gone)
    faults = changed(run, lambda lines: [line for line in lines if line["interval"] != gone])
    assert faults == [f"interval {gone}: 0 lines in the ledger, {count} demonstrations in metrics"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_last_phase_without_its_lines_is_named_in_a_run_that_was_killed_and_a_fault_at_its_end(
    run: Path, capsys, finished: bool
):
    last = lines_of(run / "ledger.jsonl")[-1]
    for name in ("metrics.jsonl", "prompts.jsonl"):
        write_lines(run / name, [line for line in lines_of(run / name) if line["step"] <= last["step"]])
    if not finished:
        (run / "summary.json").unlink()
    faults = changed(run, lambda lines: [line for line in lines if line["interval"] != last["interval"]])
    assert any(fault.startswith(f"interval {last['interval']}: 0 lines") for fault in faults) == finished
    assert main([str(run)]) == finished
    out = capsys.readouterr().out
    assert (f"the SFT phase of interval {last['interval']} is not written whole yet" in out) != finished
    assert "the RL record of step" not in out


def test_what_no_digest_proves_is_named_and_no_more(run: Path, capsys):
    metrics = lines_of(run / "metrics.jsonl")
    write_lines(run / "metrics.jsonl", [{k: v for k, v in line.items() if k != "ledger_sha256"} for line in metrics])
    (run / "ledger.jsonl").write_text((run / "ledger.jsonl").read_text().replace('"dataset"', '"another"', 1))
    updates = sum(line["phase"] == "sft" for line in metrics)
    said = f"{updates} SFT updates have no digest (an older run): of their lines, the source{{}}, the order and"
    assert main([str(run)]) == 0
    assert said.format("") in capsys.readouterr().out
    (run / "prompts.jsonl").unlink()
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert said.format(", num_correct, num_rollouts") in out
    assert "the prompts of RL are not recorded" in out and out.count("not recorded") == 3
    assert "RL steps" not in out.splitlines()[-1]


@pytest.mark.parametrize("name", ["nosuch.parquet", "config.yaml"])
def test_a_data_file_that_is_none_is_a_slip_and_no_fault(run: Path, capsys, name: str):
    assert main([str(run), f"data={run / name}"]) == 2
    out, err = capsys.readouterr()
    said = f"error: data={run / name} must be a parquet file that exists; name the run's training files, or leave data="
    assert not out and err.startswith(said) and err.count("\n") == 1


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: run={tmp_path} must be the folder of a run")
    assert main([]) == 2


def test_the_table_of_the_phases_does_not_grow_with_the_square_of_the_run():
    def seconds(phases: int) -> float:
        counts = {"frozen_share": 0.5, "kept_tokens": 1, "response_tokens": 5, "demonstrations": 1}
        lines = [
            {"phase": "sft", "step": at, "interval": at, "seconds": {"sft": 0.5}, "accuracy_before": None} | counts
            for at in range(1, phases + 1)
        ]
        start = time.process_time()
        assert len(totals(lines, [])["sft_phases"]) == phases
        return time.process_time() - start

    assert seconds(8000) < 32 * seconds(1000)  # 8 times if it is linear, 64 times if it is not


def mixed(run: Path) -> list[dict[str, Any]]:
    """The first four steps as RL steps, of which two have demonstrations of their own prompts in their updates."""
    (run / "summary.json").unlink()
    for name in ("prompts.jsonl", "metrics.jsonl", "validation.jsonl"):
        write_lines(run / name, [one for one in lines_of(run / name) if one["step"] <= 4 and one.get("phase") != "sft"])
    metrics = [one | {"interval": 1} for one in lines_of(run / "metrics.jsonl")]
    prompts = [one | {"interval": 1} for one in lines_of(run / "prompts.jsonl")]
    write_lines(run / "prompts.jsonl", prompts)
    use, ledger = lines_of(run / "ledger.jsonl")[0], []
    for place in (1, 3):
        ids = [
            [prompt_id, correct, rollouts] for prompt_id, correct, rollouts in prompts[place]["prompts"] if correct < 2
        ]
        names = ("prompt_id", "num_correct", "num_rollouts")
        own = [use | {"interval": 1, "step": place + 1} | dict(zip(names, one, strict=True)) for one in ids]
        sums = {name: sum(line[name] for line in own) for name in ("response_tokens", "kept_tokens")}
        metrics[place]["staged"] = {"demonstrations": len(own), **sums, "ledger_sha256": lines_sha256(own)}
        ledger += own
    write_lines(run / "metrics.jsonl", metrics)
    write_lines(run / "ledger.jsonl", ledger)
    return ledger


def test_demonstrations_in_the_updates_of_rl_are_held_against_the_record_of_their_step(run: Path):
    ledger = mixed(run)
    assert len({line["step"] for line in ledger}) == 2 and len(ledger) > 2
    assert audit(read_run(run)) == [] and read_run(run).pending_interval is None
    assert f"interval 1: {len(ledger) - 1} lines in the ledger, {len(ledger)} demonstrations in metrics" in changed(
        run, lambda lines: lines.pop() and None
    )
    write_lines(run / "ledger.jsonl", [ledger[0] | {"source": "mine"}, *ledger[1:]])
    count = sum(line["step"] == 2 for line in ledger)
    assert audit(read_run(run)) == [
        f"interval 1, step 2: the digest of its {count} ledger lines is not that of metrics"
    ]


def test_a_run_that_was_killed_between_a_mixed_step_and_its_lines_has_no_fault(run: Path):
    ledger = mixed(run)
    write_lines(run / "ledger.jsonl", [line for line in ledger if line["step"] < 4])
    assert audit(read_run(run)) == []


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("token_selector", {"name": "mine", "ratio": 3}),
        ("gate", {"_target_": "nosuch.package.Gate"}),
        ("schedule", {"name": "when_moon_is_full"}),
        ("mine", {"name": "a", "of": {"name": "b"}}),
    ],
)
def test_a_part_that_nobody_here_knows_breaks_nothing_and_promises_nothing(run: Path, group: str, node: dict[str, Any]):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["mifo"][group] = node
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main([str(run)]) == 0
    assert report([str(run)]) == 0


def test_a_run_with_the_names_of_an_older_version_is_verified_by_them(run: Path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    mifo = config["mifo"]
    mifo["prompt_selector"], mifo["freeze"] = mifo.pop("gate") | {"max_accuracy": 0}, mifo.pop("constraint")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert any("of 8 correct is not hard" in fault for fault in audit(read_run(run)))


def with_members(run: Path) -> dict[str, Any]:
    """Step 1 of the run with two demonstrations among its rollouts; one of their lines."""
    metrics, ledger, step = lines_of(run / "metrics.jsonl"), lines_of(run / "ledger.jsonl"), 1
    prompt_id, correct, rollouts = lines_of(run / "prompts.jsonl")[0]["prompts"][0]
    counts = {"prompt_id": prompt_id, "num_correct": correct, "num_rollouts": rollouts}
    line = ledger[0] | counts | {"interval": 1, "step": step, "response_tokens": 9, "kept_tokens": 4, "kind": "rollout"}
    write_lines(run / "ledger.jsonl", [line, line, *ledger])
    metrics[0] |= {"members": 2, "prefix_tokens": 8, "members_sha256": lines_sha256([line, line])}
    write_lines(run / "metrics.jsonl", metrics)
    (run / "summary.json").unlink()  # whose numbers are without them
    return line


def test_demonstrations_among_the_rollouts_are_in_the_account_and_verified_against_their_step(run: Path):
    before = account(read_run(run), None)
    with_members(run)
    assert audit(read_run(run)) == []
    found = account(read_run(run), None)
    assert (before.members, found.members) == (0, 2)
    assert found.demonstrations == before.demonstrations + 2 and found.kept_tokens == before.kept_tokens + 8


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda lines: lines.pop(0) and None,
            "step 1: 1 rollouts begin with 4 given tokens in the ledger, 2 with 8 in",
        ),
        (lambda lines: lines[0].update(kept_tokens=5), "step 1: 2 rollouts begin with 9 given tokens in the ledger"),
        (lambda lines: lines[0].update(kept_tokens=10), "ledger line 1: 10 of 9 tokens kept"),
        (lambda lines: lines[0].update(source="another"), "step 1: the digest of the ledger lines of its 2 rollouts"),
        (lambda lines: lines[0].update(num_correct=7), "are not the rollouts of"),
        (lambda lines: lines[0].update(step=2), "step 2: 1 rollouts begin with 4 given tokens in the ledger, 0 with 0"),
        (lambda lines: lines[0].update(kind="update"), "lines in the ledger"),
    ],
)
def test_a_line_of_a_rollout_that_is_altered_is_found(run: Path, change, fault: str):
    with_members(run)
    assert any(fault in found for found in changed(run, change)), changed(run, lambda lines: None)
