"""A damaged record or config ends neither the ledger's command nor the report: it is named, and left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.tools.ledger import shapes
from mifo_verl.tools.ledger.__main__ import main
from mifo_verl.tools.ledger.audit import audit
from mifo_verl.tools.ledger.read import read_run
from mifo_verl.tools.report.__main__ import main as report
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.run import load
from tests.unit.example_run import lines_of, write_lines


def required(shape: shapes.Shape) -> list[str]:
    return [name for name in shape if "?" not in name and "." not in name]


FIELDS = [
    *(("metrics.jsonl", phase, field) for phase in ("rl", "sft") for field in required(shapes.METRICS[phase])),
    *(("prompts.jsonl", None, field) for field in required(shapes.PROMPTS)),
    *(("ledger.jsonl", None, field) for field in required(shapes.LEDGER) if field != "source"),
]


@pytest.mark.parametrize(("name", "phase", "field"), FIELDS)
def test_a_record_without_a_field_or_with_another_type_is_named(run: Path, capsys, name, phase, field):
    lines = lines_of(run / name)
    places = [place for place, line in enumerate(lines) if line.get("phase") == phase][:2]
    del lines[places[0]][field]
    lines[places[1]][field] = "three" if field not in ("prompt_id", "demonstration_sha256") else 3
    write_lines(run / name, lines)
    first, second = audit(read_run(run))
    assert first.startswith(f"{name} line {places[0] + 1}: {field} is missing")
    assert second.startswith(f"{name} line {places[1] + 1}: {field}={lines[places[1]][field]!r} has a wrong type")
    assert main([str(run)]) == 1
    assert "NOT verified: 2 faults" in capsys.readouterr().out
    assert f"{field} is missing" in render([load(run)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase": "rest"}, "phase='rest' is neither rl nor sft"),
        ({"seconds": {"rollout": "1"}}, "rollout='1' has a wrong type"),
        ({"rollouts": True}, "rollouts=True has a wrong type"),
        ({"kl_tokens": "many"}, "kl_tokens='many' has a wrong type"),
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
    assert load(run).faults == ["prompts.jsonl line 2: ['q', 1] is not [prompt id, correct rollouts, rollouts]"]


@pytest.mark.parametrize("name", ["ledger.jsonl", "metrics.jsonl", "prompts.jsonl"])
def test_a_key_that_is_there_twice_is_a_fault(run: Path, name: str):
    """JSON keeps the last, so the digest of the line would be that of the true one."""
    first, *rest = (run / name).read_text().splitlines(keepends=True)
    (run / name).write_text("".join(['{"interval": 9, ' + first[1:], *rest]))
    assert audit(read_run(run)) == [f"{name} line 1: no JSON (interval is there twice)"]


def test_an_unknown_field_of_the_ledger_is_a_fault_and_an_older_run_names_no_source(run: Path):
    lines = lines_of(run / "ledger.jsonl")
    write_lines(run / "ledger.jsonl", [lines[0] | {"note": "mine"}, *lines[1:]])
    assert audit(read_run(run)) == ["ledger.jsonl line 1: note is unknown"]
    del lines[0]["source"]
    write_lines(run / "ledger.jsonl", lines)
    assert [fault.split(":")[1] for fault in audit(read_run(run))] == [
        " the digest of its 4 ledger lines is not that of metrics"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "data.train_files is missing"),
        ("a: [", "while parsing"),
        ("- 1", "mifo.schedule.name is missing"),
        ("actor_rollout_ref: {rollout: {n: eight}}", "actor_rollout_ref.rollout.n='eight' has a wrong type"),
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
        (summary | {"seconds": 3}, "seconds.total is missing"),
        (
            summary | {"sft_phases": [{"interval": 1, "demonstrations": 1, "kept_tokens": 1}]},
            "sft_phases: response_tokens is missing",
        ),
        ([summary], "no object"),
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
        ("mask.by_layer", {}, "mask.by_layer.both_moved is missing"),
        ("mask.by_layer.rl_norm", KeyError, "mask.by_layer.rl_norm is missing"),
        ("mask.by_layer.rl_norm.2", None, "mask.by_layer.rl_norm is no list of 4 numbers"),
        ("mask.by_layer.layer.0", 5, "mask.by_layer.layer is no list of 4 texts"),
        ("mask.by_kind.frozen.0", KeyError, "mask.by_kind.frozen is no list of 4 numbers"),
        ("mask.by_kind", None, "mask.by_kind=None has a wrong type"),
        ("tokens.edges", [], "tokens.edges is no list of 1 numbers"),
        ("tokens.entropy.0", KeyError, "tokens.entropy is no list of 42 numbers"),
        ("tokens.position_kept.19", "x", "tokens.position_kept is no list of 20 numbers"),
        ("tokens.threshold.median", None, "tokens.threshold.median=None has a wrong type"),
        ("tokens.top_tokens.0.0", KeyError, "tokens.top_tokens are not [text, kept, of so many]"),
        ("tokens.examples.0", 3, "tokens.examples.0.no object"),
        ("tokens.examples.0.kept.0", None, "tokens.examples.0.kept is no list of 16 numbers"),
        ("tokens.examples.0.prompt", KeyError, "tokens.examples.0.prompt is missing"),
    ],
)
def test_what_was_inspected_and_cannot_be_drawn_is_named_and_left_out(run: Path, way: str, value: Any, words: str):
    lines = lines_of(run / "inspection.jsonl")
    parts = [int(part) if part.isdigit() else part for part in way.split(".")]
    write_lines(run / "inspection.jsonl", [put(lines[0], parts, value), *lines[1:]])
    found = load(run)
    assert len(found.inspection) == len(lines) - 1
    assert found.left_out[0].startswith(f"inspection.jsonl line 1: {words}")
    assert "1 other records cannot be used" in render([found])


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
    text = (run / name).read_text()
    lines = lines_of(run / name) if name.endswith("jsonl") else [json.loads(text)]
    last = max((place for place, line in enumerate(lines) if line.get("mask")), default=0)
    for number in {0, last}:
        for way in places_of(lines[number]):
            damaged = [*lines[:number], put(lines[number], way, None), *lines[number + 1 :]]
            (run / name).write_text("".join(json.dumps(line) + "\n" for line in damaged))
            assert "<html" in render([load(run)]), way
