"""The report: every number in it is one of the records, it opens without a network, and a torn run has one too."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import yaml

from mifo_verl.run.journal import RunRecords
from mifo_verl.tools.report.__main__ import main
from mifo_verl.tools.report.figures_inspected import mask_figures
from mifo_verl.tools.report.groups import curve, group, probe_curve
from mifo_verl.tools.report.numbers import numbers
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.rows import shown
from mifo_verl.tools.report.run import load, load_all
from tests.unit.example_run import ExampleRun, config, lines_of, make_data, write_lines


class Numbers(HTMLParser):
    """Every number that the page marks as one: name, exact value, text shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self._open: tuple[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if "data-n" in named:
            self._open = (str(named["data-n"]), str(named["data-v"]))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((*self._open, data))
            self._open = None


def figures_of(html: str) -> list[dict[str, Any]]:
    text = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    assert text is not None
    return json.loads(text.group(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return ExampleRun(tmp_path_factory.mktemp("runs") / "example", data).run(12)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return render(load_all([run]))


def plain(html: str) -> str:
    """The text, its tags gone and its white space as a browser has it."""
    return " ".join(re.sub(r"<[^>]+>", "", html).split())


def coupling_of(rl: list[Any], sft: list[Any]) -> dict[str, float]:
    """The coupling table of the page, from the lines."""
    columns = {
        "rl_raised_cross_entropy": ("cross_entropy", 1),
        "sft_raised_cross_entropy": ("cross_entropy", 1),
        "sft_lost_accuracy": ("accuracy", -1),
        "sft_lost_solved": ("solved_accuracy", -1),
        "sft_gained_hard": ("hard_accuracy", 1),
        "sft_raised_entropy": ("policy_entropy", 1),
        "sft_raised_margin": ("reward_margin", 1),
    }
    found: dict[str, float] = {}
    for name, (quantity, sign) in columns.items():
        lines = [line for line in (rl if name.startswith("rl") else sft) if f"{quantity}_before" in line]
        for line in lines:
            before, after = (line[f"{quantity}_{side}"] for side in ("before", "after"))
            before, after = (one["mean"] if isinstance(one, dict) else one for one in (before, after))
            found[f"coupling_{line['interval']}_{name}"] = sign * (after - before)
        found[f"coupling_total_{name}"] = sum(found[f"coupling_{line['interval']}_{name}"] for line in lines)
    for line in sft:
        found[f"coupling_{line['interval']}_kl_to_before"] = line["kl_to_before"]
    found["coupling_total_kl_to_before"] = sum(line["kl_to_before"] for line in sft)
    for where in [*(f"coupling_{line['interval']}_" for line in sft), "coupling_total_"]:
        lost, gained = found[where + "sft_lost_solved"], found[where + "sft_gained_hard"]
        if gained > 0:
            found[where + "lost_solved_per_gained_hard"] = lost / gained
    return found


def recomputed(run: Path) -> dict[str, float | int | None]:
    """The numbers of the page, from the JSON lines alone and without the package."""
    metrics, uses = lines_of(run / "metrics.jsonl"), lines_of(run / "ledger.jsonl")
    rl = [line for line in metrics if line["phase"] == "rl"]
    sft = [line for line in metrics if line["phase"] == "sft"]
    last = {line["interval"]: line for line in sft}
    masks = [line["mask"] for line in last.values()]
    changes = [line["accuracy_after"]["mean"] - line["accuracy_before"]["mean"] for line in last.values()]
    drawn = [prompt[0] for line in lines_of(run / "prompts.jsonl") for prompt in line["prompts"]]
    tokens, kept = sum(use["response_tokens"] for use in uses), sum(use["kept_tokens"] for use in uses)
    by_text: dict[str, int] = {}
    for use in uses:
        by_text[use["demonstration_sha256"]] = by_text.get(use["demonstration_sha256"], 0) + 1
    validations = [line["accuracy"]["mean"] for line in lines_of(run / "validation.jsonl")]
    frozen: dict[str, list[int]] = {}
    for line in lines_of(run / "inspection.jsonl"):
        table = line["mask"]["by_kind"]
        for kind, part, whole in zip(table["kind"], table["frozen"], table["coordinates"], strict=True):
            frozen.setdefault(kind, []).append(part)
            assert whole == 25
    found: dict[str, float | int | None] = {
        "rl_steps": len(rl),
        "sft_phases": len(last),
        "sft_updates": len(sft),
        "buffer_size": 6,
        "seconds_sft": 0.25 * len(sft),
        "seconds_total": 100.0,
        "sft_time_share": 0.25 * len(sft) / 100,
        "accuracy_start": validations[0],
        "accuracy_end": validations[-1],
        "accuracy_change": validations[-1] - validations[0],
        "held_out_asked": 32,
        "probed_phases": len(changes),
        "mean_change": sum(changes) / len(changes),
        "worst_change": min(changes),
        "phases_down": sum(change < 0 for change in changes),
        "coordinates": 100,
        "frozen_share": sum(mask["num_frozen"] for mask in masks) / (100 * len(masks)),
        "last_frozen": masks[-1]["num_frozen"],
        "last_threshold": masks[-1]["threshold"],
        "frozen_drift": max(line["frozen_drift"] for line in last.values()),
        "demonstrations": len(uses),
        "distinct_demonstrations": len({use["prompt_id"] for use in uses}),
        "most_uses": max(by_text.values()),
        "response_tokens": tokens,
        "kept_tokens": kept,
        "kept_share": kept / tokens,
        "rollouts": sum(line["rollouts"] for line in rl),
        "rl_prompts": len(drawn),
        "distinct_rl_prompts": len(set(drawn)),
        "rows": 60,
        "rows_with_demonstration": 60,
        "share_of_demonstrations": len({use["prompt_id"] for use in uses}) / 60,
        "share_of_prompts": len(set(drawn)) / 60,
    }
    for kind in ("solved", "hard"):
        found[f"{kind}_asked"] = 64 * len(last)
        found[f"{kind}_won"] = sum(
            64 * (line[f"{kind}_accuracy_after"] - line[f"{kind}_accuracy_before"]) for line in last.values()
        )
    found |= coupling_of(rl, list(last.values()))
    compute = sum(line["rollouts"] * line["response_length"] * 10 for line in rl) + 6 * tokens
    seconds = (0.125 + 0.25) * len(rl)
    probed = sum(line["kl_tokens"] * 2 for line in rl) + 100 * len(last)
    found |= {"probes_seconds": seconds, "probes_share_of_seconds": seconds / 100}
    found["probes_share_of_compute"] = probed / compute
    for number in set(by_text.values()):
        found[f"used_{number}"] = sum(uses == number for uses in by_text.values())
    for kind, parts in frozen.items():
        found[f"frozen_{kind}"] = sum(parts) / (25 * len(parts))
    for interval, end in last.items():
        own = [line for line in sft if line["interval"] == interval]
        parts = {
            "updates": len(own),
            "demonstrations": sum(line["demonstrations"] for line in own),
            "kept_tokens": sum(line["kept_tokens"] for line in own),
            "kept_share": sum(line["kept_tokens"] for line in own) / sum(line["response_tokens"] for line in own),
            "frozen_share": end["mask"]["num_frozen"] / 100,
            "seconds": 0.25 * len(own),
            "accuracy_before": end["accuracy_before"]["mean"],
            "accuracy_after": end["accuracy_after"]["mean"],
            "accuracy_change": end["accuracy_after"]["mean"] - end["accuracy_before"]["mean"],
        }
        found |= {f"interval_{interval}_{name}": value for name, value in parts.items()}
    return found


def test_every_number_is_one_recomputed_from_the_records(run: Path, html: str):
    wanted = recomputed(run)
    shown = Numbers(html).found
    assert {name for name, _, _ in shown} >= {"sft_phases", "seconds_sft", "frozen_share", "share_of_demonstrations"}
    assert {name for name, _, _ in shown} >= {
        "accuracy_start",
        "hard_won",
        "hard_asked",
        "solved_won",
        "held_out_asked",
    }
    for name, exact, text in shown:
        assert float(exact) == pytest.approx(wanted[name], abs=1e-12), name
        percent = text.endswith("%")
        number = float(text.rstrip("%").replace(",", "").replace("−", "-")) / (100 if percent else 1)
        digits = len(text.rstrip("%").partition(".")[2]) + 2 * percent
        close = 0.5 * 10**-digits if "e" not in text else abs(float(exact)) * 0.01
        assert number == pytest.approx(float(exact), abs=close * 1.0001), (name, text)


def test_the_words_say_when_what_and_which(html: str):
    text = plain(html)
    assert re.search(r"\d times, after RL in step [\d, ]+, with \d+ updates in all", text)
    assert "with 6 updates in all; the buffer held 6 to 7 prompts. The schedule: when the buffer holds 6 hard" in text
    assert "Ledger and records agree." in text
    assert "Finished: 12 RL steps in 100 seconds. Validation accuracy: 0.250 → 0.500 (+0.250)." in text


def test_every_figure_is_valid_for_plotly(html: str):
    figures = figures_of(html)
    assert len(figures) >= 18
    for figure in figures:
        go.Figure(figure)  # raises on a property that plotly does not know
        assert figure["data"]
    assert len(re.findall(r'data-figure="(\d+)"', html)) == len(figures)


def figure_named(html: str, title: str) -> dict[str, Any]:
    place = re.search(rf'<h3>{re.escape(title)}</h3>.*?data-figure="(\d+)"', html, re.S)
    assert place is not None, title
    return figures_of(html)[int(place.group(1))]


def test_the_figures_hold_the_numbers_of_the_records(run: Path, html: str):
    metrics = lines_of(run / "metrics.jsonl")
    rl = [line for line in metrics if line["phase"] == "rl"]
    sft = [line for line in metrics if line["phase"] == "sft"]
    accuracy = figure_named(html, "Accuracy and reward")
    assert accuracy["data"][0]["y"] == [line["accuracy"] for line in rl]
    marked = [shape["x0"] for shape in accuracy["layout"]["shapes"]]
    assert marked == sorted({line["step"] for line in sft})
    for name, title in (
        ("entropy", "Entropy"),
        ("kl_to_start", "KL to the interval's start"),
        ("grad_norm", "RL gradient norm"),
    ):
        assert figure_named(html, title.replace("'", "&#39;"))["data"][0]["y"] == [line[name] for line in rl]
    assert figure_named(html, "SFT loss")["data"][0]["y"] == [line["loss"] for line in sft]
    lines = lines_of(run / "inspection.jsonl")
    heat = figure_named(html, "Frozen, by layer")["data"][0]
    assert heat["y"] == ["embedding", "0", "1", "norm"]
    assert heat["z"][1] == [line["mask"]["by_layer"]["frozen"][1] / 25 for line in lines]
    whole = sum(sum(line["mask"]["by_layer"]["frozen"]) for line in lines) / (100 * len(lines))
    assert heat["colorscale"][2] == [whole, "#f8fafc"]  # white is the share of the whole model, as the note says
    assert heat["colorscale"][1][0] == whole / 2 and (heat["zmin"], heat["zmax"]) == (0, 1)
    entropy = figure_named(html, "Entropy of the demonstrations&#39; tokens")["data"]
    assert sum(entropy[0]["y"]) == sum(line["response_tokens"] for line in sft)
    assert sum(entropy[1]["y"]) == sum(line["kept_tokens"] for line in sft)


def test_what_mixed_methods_record_is_drawn_and_nothing_of_it_without_them(tmp_path: Path, data: Path, html: str):
    run = ExampleRun(tmp_path / "mixed", data).run(3)
    lines = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "rl"]
    for line in lines:
        line |= {"members": 4, "prefix_tokens": 10 * line["step"], "mixing": {"rl": 0.5, "sft": line["step"] / 10}}
        line["policies"] = {"adapter_grad_norm": 0.1, "second_grad_norm": None, "clip_share": 0.25}
        line["policies"]["cooperative_gain"] = line["step"] - 1.0
    write_lines(run / "metrics.jsonl", lines)
    mixed = render(load_all([run]))
    assert figure_named(mixed, "Tokens given")["data"][0]["y"] == [10, 20, 30]
    assert figure_named(mixed, "Members from demonstrations")["data"][0]["y"] == [4, 4, 4]
    weights = {trace["name"]: trace["y"] for trace in figure_named(mixed, "Weights of the losses")["data"]}
    assert weights == {"rl": [0.5, 0.5, 0.5], "sft": [0.1, 0.2, 0.3]}
    assert figure_named(mixed, "Cooperative gain")["data"][0]["y"] == [0.0, 1.0, 2.0]
    assert figure_named(mixed, "Tokens clipped at the second policy")["data"][0]["y"] == [0.25] * 3
    norms = {trace["name"]: trace["y"] for trace in figure_named(mixed, "Gradient norms of the policies")["data"]}
    assert norms == {"base weights": [line["grad_norm"] for line in lines], "adapter": [0.1] * 3}
    titles = ("Cooperative gain", "Tokens clipped at the second policy", "Gradient norms of the policies")
    for title in ("Tokens given", "Members from demonstrations", "Weights of the losses", *titles):
        assert title in mixed and title not in html


def test_the_stages_add_up_to_the_seconds_of_the_records_without_the_kl_twice(run: Path, html: str):
    figure = figure_named(html, "Seconds by stage")
    by_stage = {bar["name"].rsplit(" ", 2)[0]: sum(bar["y"]) for bar in figure["data"]}
    assert by_stage["old log prob"] == pytest.approx(12 * 0.25)  # 0.5 seconds, of which 0.25 are the KL's
    assert by_stage["kl to start"] == pytest.approx(12 * 0.25)
    timeline = figure_named(html, "Phases")["data"]
    seconds = {bar["name"]: sum(bar["x"]) for bar in timeline}
    assert seconds["RL"] == pytest.approx(12 * (1.0 + 0.25 + 0.5))
    assert sum(seconds.values()) == pytest.approx(100.0)  # the whole run's
    assert by_stage["not in a record"] == pytest.approx(seconds["beside"] - 12 * (0.25 + 0.125 + 0.25))
    summary = json.loads((run / "summary.json").read_text())
    assert numbers(load(run))["seconds_rl"] == pytest.approx(summary["seconds"]["rl"]) == pytest.approx(12 * 1.75)


def test_the_probes_of_a_step_without_rollouts_are_among_the_seconds(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "sft", data).run(12, finish=False)
    lines = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "sft"]
    lines[-1]["seconds"]["probe"] = 0.5
    write_lines(run / "metrics.jsonl", lines)
    html = render(load_all([run]))
    by_stage = {bar["name"].rsplit(" ", 2)[0]: sum(bar["y"]) for bar in figure_named(html, "Seconds by stage")["data"]}
    assert by_stage == {"sft": pytest.approx(0.25 * len(lines)), "probe": 0.5}
    blocks = {bar["name"]: sum(bar["x"]) for bar in figure_named(html, "Phases")["data"]}
    assert blocks == {"beside": 0.5, "SFT": pytest.approx(0.25 * len(lines))}
    assert numbers(load(run))["seconds_total"] == pytest.approx(0.25 * len(lines) + 0.5)


def test_rounding_is_no_change_in_a_curve_either(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "r", data).run(12)
    lines = lines_of(run / "metrics.jsonl")
    for line in lines:
        if "accuracy_before" in line:
            line |= {"accuracy_before": {"mean": 0.3}, "accuracy_after": {"mean": 0.1 + 0.2}}
    write_lines(run / "metrics.jsonl", lines)
    (one,) = group(load_all([run]))
    assert set(probe_curve(one, "sft", "accuracy")["mean"]) == {0.0}


def test_rollouts_stand_beside_their_questions_demonstration_with_their_verdict(run: Path, html: str):
    used = {use["prompt_id"] for use in lines_of(run / "ledger.jsonl")}
    samples = {line["prompt_id"]: line for line in lines_of(run / "samples.jsonl")}
    page = plain(html[html.index("Rollouts, beside the demonstration") : html.index("Time and memory")])
    assert len(samples) > 4 and used & samples.keys()
    shown = [prompt_id for prompt_id in samples if f"{prompt_id}: its demonstration was" in page]
    assert len(shown) == 8 and len(used & samples.keys()) <= 8 and used & samples.keys() <= set(shown)
    for prompt_id in shown:
        line = samples[prompt_id]
        assert f"{line['num_correct']} of {line['num_rollouts']} rollouts were correct" in page
        assert f"&lt;b&gt;{line['step']}&lt;/b&gt;" in html  # what a model writes is text


def test_it_needs_no_network(html: str):
    without_library = re.sub(r'<script type="text/plain" id="library">.*?</script>', "", html, flags=re.S)
    assert not re.search(r"https?://|src=|@import|url\(", without_library)
    assert len(html.encode()) < 5_000_000


def test_it_is_the_same_again(run: Path, html: str):
    assert render(load_all([run])) == html


def test_a_report_of_500_steps_is_under_5_megabytes(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "long", data).run(500)
    assert main([str(run)]) == 0
    assert (run / "report.html").stat().st_size < 5_000_000


def test_a_run_that_goes_on_or_was_killed_has_a_report(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "killed", data).run(12, finish=False)
    for name in ("metrics.jsonl", "ledger.jsonl", "inspection.jsonl", "prompts.jsonl"):
        (run / name).write_text((run / name).read_text() + '{"step": 13, "pha')
    assert main([str(run)]) == 0
    text = plain((run / "report.html").read_text())
    assert "No summary yet: the run goes on, or was killed. Its last record is of step 12 of 12." in text
    assert "Validation accuracy: 0.250 → 0.500 after step 12 (+0.250)." in text
    assert "last validation accuracy" in text and "accuracy at the end" not in text


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_has_hardly_begun_has_a_report(tmp_path: Path, data: Path, steps: int):
    made = ExampleRun(tmp_path / "new", data)
    run = made.run(0, finish=False)
    if steps:
        made.step(1, None)
    assert main([str(run)]) == 0
    assert "Validation accuracy at the start: 0.250." in plain((run / "report.html").read_text())
    assert "Never so far." in (run / "report.html").read_text()


def test_old_runs_without_prompts_inspection_and_memory_have_a_report(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "old", data).run(12)
    (run / "prompts.jsonl").unlink()
    (run / "inspection.jsonl").unlink()
    (run / "memory.jsonl").unlink()
    metrics = [{k: v for k, v in line.items() if k != "ledger_sha256"} for line in lines_of(run / "metrics.jsonl")]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    assert main([str(run)]) == 0
    html = (run / "report.html").read_text()
    assert "SFT updates have no digest (an older run)" in html and "But the prompts of RL are not recorded" in html


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([]) == 2


@pytest.mark.parametrize("out", ["/proc/foo/x.html", "/proc"])
def test_a_file_that_cannot_be_written_is_said_in_one_line_before_the_work(tmp_path: Path, capsys, out: str):
    assert main([str(tmp_path / "nosuch"), f"out={out}"]) == 2  # there is no run either, and nobody has looked yet
    error = capsys.readouterr().err
    assert f"out={out} must be a file that can be written" in error and error.count("\n") == 1


def test_a_faulty_ledger_is_said_at_the_top(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(12)
    ledger = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run / "ledger.jsonl").write_text("".join(ledger[1:]))
    assert "The ledger has" in render(load_all([run])).partition("</section>")[0]


def leave_out_the_start(run: Path) -> None:
    """As where ``trainer.val_before_train`` is off."""
    write_lines(run / "validation.jsonl", lines_of(run / "validation.jsonl")[1:])
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"accuracy_start": {}}))


def test_a_run_that_has_not_validated_its_start_says_no_change(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(5)
    leave_out_the_start(run)
    assert load(run).faults == []
    assert "Finished: 5 RL steps in 100 seconds. Validation accuracy: 0.500." in plain(render(load_all([run])))


def test_a_run_from_before_validations_had_a_file_has_both_ends(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(5)
    (run / "validation.jsonl").unlink()
    summary = json.loads((run / "summary.json").read_text())
    summary["seconds"]["rl"] += 1  # as some of them have it
    (run / "summary.json").write_text(json.dumps(summary))
    found = load(run)
    assert found.validations == {0: 0.25, 5: 0.5} and found.faults == []
    assert "the validations have no file (an older run): accuracies and seconds at its end" in found.unproved[0]


def test_a_run_that_goes_on_from_before_validations_had_a_file_keeps_them_all(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(8)
    write_lines(run / "validation.jsonl", lines_of(run / "validation.jsonl")[-1:])
    found = load(run)
    assert found.validations == {0: 0.25, 6: 0.375, 8: 0.5} and found.faults == []


def test_the_words_of_a_mask_are_those_of_its_parts(tmp_path: Path, data: Path):
    random = {"importance": {"name": "random", "seed": 0}}
    mine = {"importance": {"name": "mine", "weight": 3}, "constraint": {"name": "hold", "_target_": "mine.Hold"}}
    for place, (mifo, said) in enumerate(
        (
            (
                {},
                "in the last one 47, by importance: most changed by RL (threshold 0.0003). The constraint: the top 0.5 of",
            ),
            (random, "in the last one 47, by importance: drawn at random (threshold 0.0003)."),
            (mine, "by importance: mine (weight=3) (threshold 0.0003). The constraint: hold (_target_=mine.Hold)."),
        )
    ):
        run = ExampleRun(tmp_path / str(place), data, **mifo).run(12)
        assert said in plain(render(load_all([run])))
    lines = lines_of(run / "metrics.jsonl")
    for line in lines:
        if line.get("mask"):
            line["mask"] |= {"threshold": None, "num_frozen": 0}
    write_lines(run / "metrics.jsonl", lines)
    assert "in the last one 0, by importance: mine (weight=3). The constraint" in plain(render(load_all([run])))


def test_demonstrations_are_of_hard_prompts_only_where_rollouts_chose_them(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(12)
    assert re.search(r"SFT: \d+ demonstrations of hard prompts, ", plain(render(load_all([run]))))
    write_lines(run / "ledger.jsonl", [use | {"num_rollouts": None} for use in lines_of(run / "ledger.jsonl")])
    write_lines(run / "metrics.jsonl", [one for one in lines_of(run / "metrics.jsonl") if one["phase"] == "sft"])
    text = plain(render(load_all([run])))
    assert re.search(r"SFT: \d+ demonstrations, ", text)
    assert re.search(r"\d times, in step [\d, ]+, with", text)


def test_numbers_that_are_not_finite_are_drawn_as_gaps(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "run", data).run(12)
    lines = lines_of(run / "inspection.jsonl")
    lines[0]["mask"]["by_layer"]["rl_norm"][0] = float("nan")
    write_lines(run / "inspection.jsonl", lines)
    drawn = figure_named(render(load_all([run])), "Size of the updates, by layer")["data"]
    assert any(None in trace["y"] for trace in drawn)


def test_a_run_whose_rollouts_all_begin_with_given_tokens_has_no_accuracy_and_a_report(tmp_path: Path, data: Path):
    folder = ExampleRun(tmp_path / "uft", data).run(4)
    nothing = {"accuracy": None, "fallback_share": None, "rollouts": 0, "members": 32, "prefix_tokens": 99}
    lines = lines_of(folder / "metrics.jsonl")
    write_lines(folder / "metrics.jsonl", [line | nothing if line["phase"] == "rl" else line for line in lines])
    assert set(figure_named(render(load_all([folder])), "Accuracy and reward")["data"][0]["y"]) == {None}


def test_where_sft_meets_rl_is_held_against_the_coordinates_that_are_not_frozen(run: Path):
    columns = {"layer": ["0", "1"], "coordinates": [10, 10], "frozen": [6, 4], "rl_visible": [8, 6]}
    columns |= {"frozen_rl_visible": [6, 3], "sft_visible": [3, 5], "both_visible": [2, 4]}
    columns |= {name: [1.0, 1.0] for name in ("rl_norm", "sft_norm")} | {"previous": [0, 0]}
    kinds = {"kind": ["q", "k"]} | {name: column for name, column in columns.items() if name != "layer"}

    def drawn(by_layer: dict[str, Any]) -> list[tuple[str, list[float]]]:
        lines = [{"interval": 1, "mask": {"by_layer": by_layer, "by_kind": kinds}}]
        figures = mask_figures(replace(load(run), inspection=lines))
        return [(one["name"], one["y"]) for one in figures[-1].data]

    # 6 of 8 of SFT's; of RL's 14 visible 9 are frozen, and 20 - 10 coordinates are not
    met = ("of what SFT changed, RL had changed", [0.75])
    assert drawn(columns) == [met, ("of the coordinates not frozen (chance)", [0.5])]
    old = {name: column for name, column in columns.items() if name != "frozen_rl_visible"}
    assert drawn(old) == [met, ("of all coordinates", [0.7])]


# ------------------------------------------------------------------ several runs


def test_means_are_of_finished_runs_and_the_others_are_named(tmp_path: Path, data: Path):
    folders = [ExampleRun(tmp_path / f"mifo-{seed}", data, seed).run(8, finish=seed < 2) for seed in (0, 1, 2)]
    write_lines(folders[2] / "validation.jsonl", [{"step": 0, "accuracy": {"mean": 0.0}}])
    leave_out_the_start(folders[1])
    text = render(load_all(folders))
    assert "Not finished, and in the curves alone: mifo-2." in text
    row = re.search(r"<tr><td><span class=\"dot\".*?</tr>", text, re.S)
    assert row is not None
    cells = [plain(cell) for cell in re.findall(r"<td>(.*?)</td>", row[0])]
    assert cells[:4] == ["mifo", "2 + 1 not finished", "0.500", "0.250 (n=1)"]  # two seeds have no interval
    validation = figure_named(text, "Validation accuracy")["data"][-1]
    assert (validation["x"], validation["y"]) == ([0, 6, 8], [0.125, 0.375, 0.5])


def test_no_two_of_twenty_methods_are_drawn_alike(tmp_path: Path, data: Path):
    run = load(ExampleRun(tmp_path / "run", data).run(1))
    runs = []
    for number in range(20):
        files = replace(run.files, config=run.config | {"buffer_size": number})
        runs.append(replace(run, label=f"method {number}", files=files))
    groups = group(runs)
    assert len({(one.color, one.dash) for one in groups}) == len(groups) == 20
    traces = figure_named(render(runs), "Rollout accuracy")["data"]
    assert {trace["line"].get("dash") for trace in traces if trace.get("name")} == {"solid", "dash"}


def test_seeds_of_a_method_are_one_group_and_methods_are_told_apart(tmp_path: Path, data: Path):
    folders = [ExampleRun(tmp_path / f"mifo-{seed}", data, seed).run(8) for seed in (0, 1, 2)]
    folders.append(ExampleRun(tmp_path / "other", data, 0, token_selector={"name": "all"}).run(8))
    groups = group(load_all(folders))
    assert [(one.label, len(one.runs)) for one in groups] == [("mifo", 3), ("other", 1)]
    html = render(load_all(folders))
    for figure in figures_of(html):
        go.Figure(figure)
    accuracy = figure_named(html, "Rollout accuracy")["data"]
    runs = [[line for line in lines_of(folder / "metrics.jsonl") if line["phase"] == "rl"] for folder in folders[:3]]
    values = [[line["accuracy"] for line in run][4] for run in runs]
    mean = sum(values) / 3
    half = 4.302653 * (sum((value - mean) ** 2 for value in values) / 2) ** 0.5 / 3**0.5
    band, line = accuracy[0], accuracy[1]
    assert line["y"][4] == pytest.approx(mean)
    assert band["y"][4] == pytest.approx(mean + half)
    assert band["y"][::-1][4] == pytest.approx(mean - half)
    assert "token_selector.name" in html


def test_plug_ins_that_differ_in_their_name_alone_are_other_methods_and_places_are_none(tmp_path: Path, data: Path):
    strict = {"name": "strict", "share": 0.5, "history": 0.5, "scope": "global"}
    folders = []
    for label, constraint in (("a-0", strict), ("a-1", strict), ("b-0", strict | {"name": "gradient"})):
        folder = ExampleRun(tmp_path / label, data, int(label[-1]), constraint=constraint).run(3)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        places = {"env_vars": {"TENSORBOARD_DIR": label, "WANDB_DIR": label}}
        config |= {"name": label, "ray_kwargs": {"ray_init": {"runtime_env": places}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        folders.append(folder)
    assert [(one.label, len(one.runs)) for one in group(load_all(folders))] == [("a", 2), ("b-0", 1)]


def test_a_seed_that_is_there_again_is_no_other_seed_and_one_that_was_resumed_is_one(tmp_path: Path, data: Path):
    places = [("mifo-0", 0), ("mifo-1", 1), ("again", 0), ("mifo-2", 2)]
    folders = [ExampleRun(tmp_path / name, data, seed).run(3) for name, seed in places]
    config = yaml.safe_load((folders[3] / "config.yaml").read_text())
    config["trainer"] |= {"resume_mode": "resume_path", "resume_from_path": "a/checkpoint"}
    (folders[3] / "config.yaml").write_text(yaml.safe_dump(config))
    assert [(one.label, len(one.runs)) for one in group(load_all(folders))] == [("mifo", 3), ("again", 1)]


def test_what_is_not_written_whole_is_in_no_number(tmp_path: Path, data: Path):
    """A kill in step 5 between its prompts and its record, in its phase between records and ledger, and a mix."""
    cases = (
        ({"metrics.jsonl": 4, "prompts.jsonl": 5, "ledger.jsonl": 4}, (4, 16, 1, 2, 7), 1),
        ({"metrics.jsonl": 5, "prompts.jsonl": 5, "ledger.jsonl": 4}, (5, 20, 1, 2, 7), 1),
        ({"metrics.jsonl": 4, "prompts.jsonl": 5, "ledger.jsonl": 5}, (4, 16, 1, 2, 7), 2),
    )
    for place, (steps, wanted, num_unproved) in enumerate(cases):
        run = ExampleRun(tmp_path / str(place), data).run(5, finish=False)
        for name, last in steps.items():
            write_lines(run / name, [line for line in lines_of(run / name) if line["step"] <= last])
        found = load(run)
        names = ("rl_steps", "rl_prompts", "sft_phases", "sft_updates", "demonstrations")
        assert tuple(numbers(found)[name] for name in names) == wanted
        assert len(found.unproved) == num_unproved and found.faults == []


def test_a_curve_has_no_band_where_fewer_than_three_runs_have_a_value(tmp_path: Path, data: Path):
    runs = [load(ExampleRun(tmp_path / f"r-{seed}", data, seed).run(steps)) for seed, steps in ((0, 3), (1, 4), (2, 5))]
    (one,) = group(runs)
    found = curve(one, "accuracy")
    assert found.index.tolist() == [1, 2, 3, 4, 5] and found["count"].tolist() == [3, 3, 3, 2, 1]
    assert found["half"].isna().tolist() == [False, False, False, True, True]
    labels = [trace.get("name") for trace in figure_named(render(runs), "Rollout accuracy")["data"]]
    assert "r (n=1–3)" in labels


def test_settings_that_differ_from_the_papers_are_marked(html: str, data: Path):
    row = re.search(r"<tr><td>SFT learning rate in an interval.*?</tr>", html, re.S)
    assert row is not None and "<mark>0.0001</mark>" in row.group(0)
    row = re.search(r"<tr><td>p, accuracy up to which a prompt is hard.*?</tr>", html, re.S)
    assert row is not None and "<mark>" not in row.group(0)
    assert config(data)["mifo"]["gate"]["max_accuracy"] == "1/8"


def test_a_run_of_sft_alone_and_numbers_that_are_missing_have_a_report(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "sft", data).run(12, finish=False)
    lines = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "sft"]
    for line in lines:
        line |= {"loss": None, "grad_norm": None, "nonfinite": ["loss", "grad_norm"]}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "prompts.jsonl").unlink()
    for figure in figures_of(render(load_all([run]))):
        go.Figure(figure)


def test_a_phase_that_was_stopped_inside_has_no_inspection_and_a_report(tmp_path: Path, data: Path):
    run = ExampleRun(tmp_path / "stopped", data).run(12)
    lines = lines_of(run / "inspection.jsonl")
    lines[0] |= {"mask": None, "tokens": None}
    (run / "inspection.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    heat = figure_named(render(load_all([run])), "Frozen, by layer")["data"][0]
    assert heat["x"] == [line["interval"] for line in lines[1:]]


def test_the_coupling_is_drawn_by_phase_and_the_kl_as_it_was_recorded(run: Path, html: str):
    metrics = lines_of(run / "metrics.jsonl")
    for phase in ("rl", "sft"):
        lines = [line for line in metrics if line["phase"] == phase and "cross_entropy_before" in line]
        (before, after) = figure_named(html, f"Cross entropy around {phase.upper()}")["data"][1:]
        assert before["y"] == [line["cross_entropy_before"] for line in lines]
        assert after["y"] == [line["cross_entropy_after"] for line in lines]
    kl = figure_named(html, "How far SFT moved the policy")["data"][0]
    assert kl["y"] == [line["kl_to_before"] for line in metrics if "kl_to_before" in line]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "No summary yet: the run goes on, or was killed."),
        (["ended"], "Stopped on request."),
        (["ended", "resumed"], "No summary yet: the run goes on, or was killed."),
        (["resumed", "saved", "failed"], "Ended by a failure (rank 1 has died)."),
    ],
)
def test_what_became_of_a_run_without_an_end_is_said(tmp_path: Path, data: Path, events: list[str], state: str):
    run = ExampleRun(tmp_path / "run", data).run(3, finish=False)
    for kind in events:
        RunRecords(run).event(kind, "rank 1 has died")
    assert f"{state} Its last record is of step 3" in plain(render([load(run)]))


def test_the_points_of_a_short_run_are_seen_and_its_steps_are_whole_numbers(html: str):
    figure = figure_named(html, "Accuracy and reward")
    assert figure["data"][0]["mode"] == "lines+markers" and figure["layout"]["xaxis"]["dtick"] == 1
    assert len({bar["marker"]["color"] for bar in figure_named(html, "Seconds by stage")["data"]}) == 8


def test_gains_and_losses_have_colours_and_the_words_are_explained(html: str):
    glossary = html[html.index("What the words mean") :].partition("</dl>")[0]
    words = re.findall(r"<dt[^>]*>(.*?)</dt><dd>(.*?)</dd>", glossary)
    assert {"interval", "hard prompt", "held out", "frozen", "CE"} <= {word for word, told in words if told}
    assert 'class="n gain"' in shown("x", 0.25, "+.2f", 1) and 'class="n loss"' in shown("x", 0.25, "+.2f", -1)
    assert 'class="n loss"' in shown("x", -0.25, "+.2f", 1) and 'class="n"' in shown("x", 0.0, "+.2f", 1)


def test_arms_that_have_no_run_are_named(tmp_path: Path, data: Path):
    runs = load_all([ExampleRun(tmp_path / f"mifo-{seed}", data, seed).run(3) for seed in (0, 1)])
    assert "no run of it has ended: rl_only, sft." in plain(render(runs, missing=["rl_only", "sft"]))


def test_a_run_that_has_solved_no_question_has_a_report(tmp_path):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(12)
    lines = lines_of(run / "metrics.jsonl")
    for line in lines:
        if line.get("probe"):
            line["probe"] = {name: number for name, number in line["probe"].items() if name != "solved"}
    write_lines(run / "metrics.jsonl", lines)
    found = numbers(load(run))
    assert found["hard_asked"] and found["solved_asked"] is None and found["solved_won"] is None
    text = re.sub(r"<[^>]+>", "", render(load_all([run])))
    assert "hard ones." in text and "solved ones" not in text
