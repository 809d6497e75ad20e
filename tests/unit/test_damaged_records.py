"""A damaged record or config ends neither the ledger's command nor the report: it is named, and left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mifo_verl.tools.ledger.__main__ import main
from mifo_verl.tools.ledger.audit import audit
from mifo_verl.tools.records import LedgerLine, PromptsLine, RlRecord, SftRecord
from mifo_verl.tools.report.__main__ import main as report
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.run import load
from mifo_verl.tools.run_files import read_run
from tests.unit.example_run import lines_of, write_lines


def required(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


FIELDS = [
    *(("metrics.jsonl", "rl", field) for field in required(RlRecord)),
    *(("metrics.jsonl", "sft", field) for field in required(SftRecord)),
    *(("prompts.jsonl", None, field) for field in required(PromptsLine)),
    *(("ledger.jsonl", None, field) for field in required(LedgerLine)),
]


@pytest.mark.parametrize(("name", "phase", "field"), FIELDS)
def test_a_record_without_a_field_or_with_another_type_is_named(run: Path, name, phase, field):
    lines = lines_of(run / name)
    places = [place for place, line in enumerate(lines) if line.get("phase") == phase][:2]
    del lines[places[0]][field]
    lines[places[1]][field] = "three" if field not in ("prompt_id", "demonstration_sha256") else 3
    write_lines(run / name, lines)
    first, second = audit(read_run(run))
    assert first == f"{name} line {places[0] + 1}: Object missing required field `{field}`"
    assert second.startswith(f"{name} line {places[1] + 1}: Expected `") and second.endswith(f" - at `$.{field}`")


def test_the_command_and_the_report_have_the_faults_of_the_audit(run: Path, capsys):
    lines = lines_of(run / "ledger.jsonl")
    del lines[0]["step"]
    lines[1]["step"] = "three"
    write_lines(run / "ledger.jsonl", lines)
    assert main([str(run)]) == 1
    assert "NOT verified: 2 faults" in capsys.readouterr().out
    assert len(faults := audit(read_run(run))) == 2 and load(run).faults == faults


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase": "rest"}, "Invalid value 'rest' - at `$.phase`"),
        ({"seconds": {"rollout": "1"}}, "Expected `float`, got `str` - at `$.seconds[...]`"),
        ({"rollouts": True}, "Expected `int`, got `bool` - at `$.rollouts`"),
        ({"kl_tokens": "many"}, "Expected `float | null`, got `str` - at `$.kl_tokens`"),
    ],
)
def test_a_record_that_no_figure_can_draw_is_named(run: Path, change, words: str):
    lines = lines_of(run / "metrics.jsonl")
    write_lines(run / "metrics.jsonl", [lines[0] | change, *lines[1:]])
    assert load(run).faults == [f"metrics.jsonl line 1: {words}"]


def test_a_prompt_that_is_no_triple_is_named(run: Path):
    lines = lines_of(run / "prompts.jsonl")
    lines[1]["prompts"][2] = ["q", 1]
    write_lines(run / "prompts.jsonl", lines)
    assert load(run).faults == ["prompts.jsonl line 2: Expected `array` of length 3, got 2 - at `$.prompts[2]`"]


@pytest.mark.parametrize("name", ["ledger.jsonl", "metrics.jsonl", "prompts.jsonl"])
def test_a_key_that_is_there_twice_is_a_fault(run: Path, name: str):
    """JSON keeps the last, so the digest of the line would be that of the true one."""
    first, *rest = (run / name).read_text().splitlines(keepends=True)
    (run / name).write_text("".join(['{"interval": 9, ' + first[1:], *rest]))
    assert audit(read_run(run)) == [f"{name} line 1: no JSON (interval is there twice)"]


def test_a_field_that_is_added_or_gone_is_found_by_the_digest_and_an_older_run_names_no_source(run: Path):
    lines = lines_of(run / "ledger.jsonl")
    digest = ["interval 1, update 1: the digest of its 4 ledger lines is not that of metrics"]
    write_lines(run / "ledger.jsonl", [lines[0] | {"note": "mine"}, *lines[1:]])
    assert audit(read_run(run)) == digest
    del lines[0]["source"]
    write_lines(run / "ledger.jsonl", lines)
    assert audit(read_run(run)) == digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "data.train_files: Expected `str | array`, got `null`"),
        ("a: [", "while parsing"),
        ("- 1", "data.train_files: Expected `str | array`, got `null`"),
        ("data: {train_files: a}", "actor_rollout_ref.rollout.n: Expected `int`, got `null`"),
    ],
)
def test_a_config_that_cannot_be_used_is_said_in_one_line(run: Path, capsys, text: str, words: str):
    (run / "config.yaml").write_text(text)
    for command in (main, report):
        assert command([str(run)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {run / 'config.yaml'} must be the resolved config of a training (")
        assert words in error and error.endswith("put back the one that the training wrote\n")
        assert error.count("\n") == 1


def test_a_share_that_is_none_is_said_in_one_line(run: Path, capsys):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("max_accuracy: 1/8", "max_accuracy: few"))
    for command in (main, report):
        assert command([str(run)]) == 2
        assert capsys.readouterr().err.startswith("error: mifo.gate.max_accuracy=few must be a share")


def test_a_summary_that_is_damaged_is_a_fault(run: Path):
    summary = json.loads((run / "summary.json").read_text())
    for damaged, words in (
        (summary | {"seconds": 3}, "Expected `object`, got `int` - at `$.seconds`"),
        (
            summary | {"sft_phases": [{"interval": 1, "demonstrations": 1, "kept_tokens": 1}]},
            "Object missing required field `response_tokens` - at `$.sft_phases[0]`",
        ),
        ([summary], "Expected `object`, got `array`"),
    ):
        (run / "summary.json").write_text(json.dumps(damaged))
        assert load(run).faults == [f"summary.json: {words}"]


def test_damage_beside_the_ledger_is_named_in_the_report_and_is_no_fault_of_the_data(run: Path, capsys):
    for name, place in (("inspection.jsonl", 1), ("memory.jsonl", 3)):
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join([*lines[:place], '{"interval": 2, "st\n', *lines[place:]]))
    with (run / "inspection.jsonl").open("a") as file:
        file.write('{"interval": 9, "step": 9, "mask": null, "tokens": {"edges": 1}}\n')
    (run / "versions.json").write_text('{"python": "3.1')
    found = load(run)
    assert [one.split(":")[0] for one in found.left_out] == [
        "inspection.jsonl line 2",
        f"inspection.jsonl line {len((run / 'inspection.jsonl').read_text().splitlines())}",
        "memory.jsonl line 4",
        "versions.json",
    ]
    assert found.faults == [] and found.versions == {}
    assert len(found.memory) == 12
    assert main([str(run)]) == 0 and report([str(run)]) == 0
    html = (run / "report.html").read_text()
    assert "4 other records cannot be used" in html.partition("</section>")[0]
    assert "versions.json: no JSON" in html


def put(line: Any, way: list[str | int], value: Any) -> Any:
    """A copy of a line with another value at one place of it; ``KeyError`` is none at all."""
    line = json.loads(json.dumps(line))
    held = line
    for part in way[:-1]:
        held = held[part]
    held[way[-1]] = value
    if value is KeyError:
        del held[way[-1]]
    return line


@pytest.mark.parametrize(
    ("way", "value", "words"),
    [
        ("mask.by_layer", {}, "by_layer.both_moved is missing - at `$.mask`"),
        ("mask.by_layer.rl_norm", KeyError, "by_layer.rl_norm is missing - at `$.mask`"),
        ("mask.by_layer.rl_norm.2", None, "by_layer.rl_norm: Expected `float`, got `null` - at `$[2]`"),
        ("mask.by_layer.layer.0", 5, "by_layer.layer: Expected `str`, got `int` - at `$[0]`"),
        ("mask.by_kind.frozen.0", KeyError, "by_kind.frozen has 3 values, not 4 - at `$.mask`"),
        ("mask.by_kind", None, "Expected `object`, got `null` - at `$.mask.by_kind`"),
        ("tokens.edges", [], "Expected `array` of length >= 1 - at `$.tokens.edges`"),
        ("tokens.entropy.0", KeyError, "entropy has 41 values, not 42 - at `$.tokens`"),
        ("tokens.position_kept.19", "x", "Expected `float`, got `str` - at `$.tokens.position_kept[19]`"),
        ("tokens.threshold.median", None, "Expected `float`, got `null` - at `$.tokens.threshold.median`"),
        ("tokens.top_tokens.0.0", KeyError, "Expected `array` of length 3, got 2 - at `$.tokens.top_tokens[0]`"),
        ("tokens.examples.0", 3, "Expected `object`, got `int` - at `$.tokens.examples[0]`"),
        ("tokens.examples.0.kept.0", None, "Expected `int`, got `null` - at `$.tokens.examples[0].kept[0]`"),
        ("tokens.examples.0.prompt", KeyError, "Object missing required field `prompt` - at `$.tokens.examples[0]`"),
    ],
)
def test_what_was_inspected_and_cannot_be_drawn_is_named_and_left_out(run: Path, way: str, value: Any, words: str):
    lines = lines_of(run / "inspection.jsonl")
    parts = [int(part) if part.isdigit() else part for part in way.split(".")]
    write_lines(run / "inspection.jsonl", [put(lines[0], parts, value), *lines[1:]])
    found = load(run)
    assert len(found.inspection) == len(lines) - 1
    assert found.left_out[0].startswith(f"inspection.jsonl line 1: {words}")


def places_of(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[list[str | int]]:
    """Every place of a line, of a list the first."""
    if way:
        yield list(way)
    if isinstance(value, dict):
        for key in value:
            yield from places_of(value[key], (*way, key))
    elif isinstance(value, list) and value:
        yield from places_of(value[0], (*way, 0))


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "inspection.jsonl", "validation.jsonl", "prompts.jsonl", "summary.json"]
)
def test_a_value_that_is_null_anywhere_ends_neither_the_audit_nor_the_report(run: Path, name: str):
    """Every place of two lines by itself; the report is made once with all nulls that it has to live with."""
    text = (run / name).read_text()
    lines = lines_of(run / name) if name.endswith("jsonl") else [json.loads(text)]
    last = max((place for place, line in enumerate(lines) if line.get("mask")), default=0)
    all_nulls, num_places = list(lines), 0
    for number in {0, last}:
        for way in places_of(lines[number]):
            damaged = [*lines[:number], put(lines[number], way, None), *lines[number + 1 :]]
            (run / name).write_text("".join(json.dumps(line) + "\n" for line in damaged))
            found, num_places = load(run), num_places + 1
            if not found.files.unreadable and not any(one.startswith(name) for one in found.left_out):
                all_nulls[number] = put(all_nulls[number], way, None) if len(way) == 1 else all_nulls[number]
                numbers(found)
    (run / name).write_text("".join(json.dumps(line) + "\n" for line in all_nulls))
    assert "<html" in render([load(run)]) and num_places > 3
