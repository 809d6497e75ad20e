"""Sweeps: expanded, checked before anything starts, skipped, resumed, refused; with a training that only writes records."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mifo_verl.compose import ConfigError, compose_config, config_folder
from mifo_verl.tools.analyze.__main__ import main as analyze
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.tools.sweep.__main__ import main
from mifo_verl.tools.sweep.definition import Definition, Question, parse, read_definition
from mifo_verl.tools.sweep.forgetting import forgetting
from mifo_verl.tools.sweep.plan import arm_label, expand, plan
from mifo_verl.tools.sweep.run import Runner
from mifo_verl.tools.sweep.store import StoredSweep, read_sweep, write_sweep
from mifo_verl.tools.sweep.sweep import same_ends

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Runs a sweep of the quick start; returns its code and the trainings that it started."""
    log = tmp_path / "started"
    monkeypatch.setenv("FAKE_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str) -> tuple[int, list[str]]:
        log.write_text("")
        given = [f"sweep_dir={tmp_path}/sweep", "experiment=quickstart", *arguments]
        return main(given, FAKE), log.read_text().splitlines()

    return run


# Expansion


def test_commas_ranges_and_choices_expand_as_in_a_multirun():
    found = expand(["a=1,2", "seed=range(0,3)", "b=choice(x,y)", "c=[1,2]", "mifo.p=1/8"])
    assert len(found) == 12
    assert found[0].overrides == ["c=[1,2]", "mifo.p=1/8", "a=1", "seed=0", "b=x"]
    assert found[-1].swept == {"a": "2", "seed": "2", "b": "y"}


def test_of_a_key_given_twice_the_last_counts():
    assert [one.overrides for one in expand(["seed=0,1", "a=1", "seed=5"])] == [["seed=5", "a=1"]]


def test_values_without_an_end_are_refused():
    with pytest.raises(ConfigError, match=r"lr=interval\(0,1\) must be values that can be counted"):
        expand(["lr=interval(0,1)"])


@pytest.mark.parametrize(
    ("label", "overrides", "expected"),
    [
        ("", ["method=mifo", "seed=0,1"], ""),
        ("", ["method=mifo,rl_only"], "mifo"),
        ("", ["method=mifo,rl_only", "mifo.constraint.share=0.3,0.5"], "mifo,share=0.3"),
        ("", ["mifo.sft.lr=0.1,1", "a.optim.lr=1,2"], "sft.lr=0.1,optim.lr=1"),
        ("p", ["mifo.gate.max_accuracy=1/8,1/4"], "p=1/8"),
        ("mine", ["seed=0,1"], "mine"),
    ],
)
def test_an_arm_is_named_by_what_is_swept(label, overrides, expected):
    assert arm_label(label, expand(overrides)[0]) == expected


def test_names_of_folders_are_plain_and_stay_when_a_value_is_added(tmp_path):
    definition = Definition(arms={"p": ["mifo.gate.max_accuracy=1/8,1/4"]})
    few = plan(definition, ["experiment=quickstart", "seed=3"], tmp_path)
    more = plan(definition, ["experiment=quickstart", "seed=3,4"], tmp_path)
    assert [run.name for run in few] == ["p-1_8-seed3", "p-1_4-seed3"]
    assert {run.name for run in few} < {run.name for run in more}


def test_arms_with_the_same_settings_are_refused(tmp_path):
    arms = {"a": ["method=mifo"], "b": ["mifo.constraint.share=0.5"]}
    with pytest.raises(ConfigError, match="a-seed0 and b-seed0 have the same settings"):
        plan(Definition(arms=arms), ["experiment=quickstart"], tmp_path)


# Before the first run


def test_a_bad_value_in_the_last_combination_starts_nothing(sweep_of, capsys):
    code, started = sweep_of("method=mifo,rl_only", "seed=0,1", "mifo.sft.lr=1e-4,-1")
    assert (code, started) == (2, [])
    assert capsys.readouterr().err.splitlines() == [
        "error: mifo.sft.lr=-1 must be a number above 0; the paper's value is 1e-6 (in mifo,lr=-1, rl_only,lr=-1)"
    ]


def test_what_only_the_checks_find_starts_nothing_either(sweep_of, capsys):
    code, started = sweep_of("method=mifo,rl_only", "data.train_batch_size=16,12")
    assert (code, started) == (2, [])
    assert "must be a divisor of data.train_batch_size=12" in capsys.readouterr().err


def test_own_settings_are_checked(sweep_of, capsys):
    assert sweep_of("method=mifo", "jobs=0") == (2, [])
    assert sweep_of("method=mifo", "sweep=evidnce") == (2, [])
    assert sweep_of("method=mifo", "baseline=rl_only") == (2, [])
    said = capsys.readouterr().err
    assert "jobs=0 must be a whole number" in said and "(did you mean evidence?)" in said
    assert "baseline=rl_only must be one of mifo" in said


# Running


def test_a_sweep_runs_skips_and_adds_and_ends_with_a_table(sweep_of, tmp_path, capsys):
    code, started = sweep_of("method=mifo,rl_only", "seed=0,1,2")
    assert code == 0
    assert started == [f"{arm}-seed{seed} disable" for arm in ("mifo", "rl_only") for seed in (0, 1, 2)]
    table = json.loads((tmp_path / "sweep/table.json").read_text())
    held = table["arms"]["mifo"]["accuracy"]
    assert held["by_seed"] == {"0": 0.6, "1": 0.61, "2": 0.62}
    assert held["mean"] == pytest.approx(0.61) and table["missing"] == []
    assert {file.name for file in (tmp_path / "sweep").iterdir() if file.is_file()} == {
        "sweep.json", "table.json", "table.csv", "table.md", "report.html",
    }  # fmt: skip
    report = (tmp_path / "sweep/report.html").read_text()
    assert "(3)" in report  # the seeds of a method are one group
    assert report.index("Answers</h2>") < report.index("Differences in accuracy") < report.index("Methods</h2>")
    assert sweep_of("method=mifo,rl_only", "seed=0,1,2") == (0, [])
    assert sweep_of("method=mifo", "seed=range(2,4)", "jobs=2") == (0, ["mifo-seed3 disable"])
    capsys.readouterr()
    assert main(["table", str(tmp_path / "sweep")]) == 0
    assert "7 of 7 runs" in capsys.readouterr().out
    page = (tmp_path / "sweep/table.md").read_text()
    assert "Planned first: arms mifo, rl_only; seeds 0, 1, 2. Added after runs had started: seeds 3." in page
    assert "sources): `not recorded`." in page  # the stand-in writes no versions
    (tmp_path / "mine.png").write_bytes(b"")
    assert "](" not in page and main(["table", str(tmp_path / "sweep"), f"out={tmp_path / 'mine.md'}"]) == 0
    assert "report of these runs](mine.png)" in (tmp_path / "mine.md").read_text()


def test_a_folder_of_other_settings_is_refused_in_words(sweep_of, capsys):
    assert sweep_of("method=mifo")[0] == 0
    code, started = sweep_of("method=mifo", "mifo.constraint.share=0.3")
    assert (code, started) == (2, [])
    assert "holds a run of other settings: mifo.constraint.share=0.3 (the folder has 0.5)" in capsys.readouterr().err


def test_a_failed_run_is_told_with_its_log_and_the_rest_goes_on(sweep_of, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FAKE_FAIL", "mifo-seed0")
    code, started = sweep_of("method=mifo", "seed=0,1")
    assert code == 1 and len(started) == 2
    said = capsys.readouterr().err
    assert "mifo-seed0: failed with exit code 1: error: it was asked to fail" in said and "logs/mifo-seed0.log" in said
    assert json.loads((tmp_path / "sweep/table.json").read_text())["missing"] == ["mifo-seed0"]
    assert "Not finished: mifo-seed0." in (tmp_path / "sweep/table.md").read_text()
    monkeypatch.delenv("FAKE_FAIL")
    assert sweep_of("method=mifo", "seed=0,1") == (0, ["mifo-seed0 disable"])


def test_an_interrupted_run_with_a_checkpoint_is_resumed(sweep_of, tmp_path):
    folder = tmp_path / "sweep/mifo-seed0"
    assert sweep_of("method=mifo")[0] == 0
    (folder / "summary.json").unlink()
    (folder / "checkpoints").mkdir()
    assert sweep_of("method=mifo") == (0, ["mifo-seed0 auto"])


def test_a_signal_reaches_the_run_and_the_sweep_ends_with_75(sweep_of, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_WAIT", "mifo-seed0")

    def stop() -> None:
        while not (tmp_path / "sweep/mifo-seed0/waits").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    code, started = sweep_of("method=mifo", "seed=0,1")
    assert (code, started) == (75, ["mifo-seed0 disable"])
    assert "the same command goes on" in capsys.readouterr().out


def test_a_signal_that_comes_while_a_run_is_being_started_reaches_it(tmp_path, monkeypatch):
    (run,) = plan(Definition(), ["experiment=quickstart", "seed=0"], tmp_path)
    runner = Runner((sys.executable, "-c", "import time; time.sleep(60)"))
    started = []

    class SlowToReturn(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)
            runner.stop(signal.SIGTERM)  # after the check, before the run is known

    monkeypatch.setattr(subprocess, "Popen", SlowToReturn)
    assert runner.run_one(run) == (f"{run.name}: stopped", False)
    assert started[0].returncode == -signal.SIGTERM and runner.running == {}


def test_no_signal_is_sent_to_the_number_of_a_process_that_has_ended(monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    sent = []
    monkeypatch.setattr(os, "kill", lambda *to: sent.append(to))
    runner = Runner()
    runner.running["ended"] = ended
    runner.stop(signal.SIGTERM)
    assert sent == []


def test_runs_that_ended_with_the_same_weights_are_told():
    why = "ended with the same weights: what differs between them changed nothing (no SFT phase came?)"
    weights = {"mifo-0": "a", "rl_only-0": "a", "mifo-1": "b", "rl_only-1": "c", "old-0": None, "old-1": None}
    assert same_ends(weights) == [f"mifo-0, rl_only-0 {why}"]


def test_a_later_call_without_questions_keeps_those_that_were_asked(tmp_path):
    asked = Definition(
        title="Mine", arms={"a": ["method=mifo"], "b": ["method=rl_only"]}, baseline="b", numbers=["gain"],
        questions=[Question("Why?", [("a", "b")])],
    )  # fmt: skip
    write_sweep(tmp_path, asked, "first", plan(asked, ["experiment=quickstart"], tmp_path))
    more = Definition(arms={"a": ["method=mifo"]})
    write_sweep(tmp_path, more, "second", plan(more, ["experiment=quickstart", "seed=7"], tmp_path))
    held = read_sweep(tmp_path)
    assert [run.name for run in held.runs] == ["a-seed0", "b-seed0", "a-seed7"]
    assert (held.title, held.baseline, held.numbers, held.command) == ("Mine", "b", ["gain"], "second")
    assert held.questions == [Question("Why?", [("a", "b")], ["accuracy"], late=False)]
    assert [one.ask for one in held.asked] == ["Against b", "Why?"]


def _starts(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "config.yaml").write_text("")


def test_what_is_asked_before_a_run_starts_replaces_and_what_is_asked_after_is_late(tmp_path):
    arms = {"a": ["method=mifo"], "b": ["method=rl_only"], "c": ["method=mifo_dagger"]}

    runs = plan(Definition(arms=arms), ["experiment=quickstart"], tmp_path)

    def ask(*questions: Question, **more) -> StoredSweep:
        write_sweep(tmp_path, Definition(arms=arms, questions=list(questions), **more), "x", runs)
        return read_sweep(tmp_path)

    first, second = Question("One?", [("a", "b")]), Question("Two?", [("b", "c")])
    ask(first)
    held = ask(second)
    assert [one.ask for one in held.questions] == ["Two?"] and held.baseline == "a"
    _starts(tmp_path, "a-seed0")
    reworded = Question("In other words?", [("c", "b")])
    for _ in range(2):  # the same call again changes nothing
        held = ask(first, reworded)
        assert [(one.ask, one.late) for one in held.questions] == [("Two?", False), ("One?", True)]
    held = ask(second, numbers=["gain"], baseline="b")
    assert (held.numbers, held.baseline) == (["accuracy"], "a")
    assert held.questions[2] == Question("Against b", [("a", "b"), ("c", "b")], ["gain"], late=True)
    assert ask(second).questions == held.questions


def test_runs_that_come_after_others_have_started_are_marked_as_added(tmp_path):
    def add(seeds: str) -> list[tuple[str, bool]]:
        asked = Definition(arms={"a": ["method=mifo"]})
        write_sweep(tmp_path, asked, "x", plan(asked, ["experiment=quickstart", f"seed={seeds}"], tmp_path))
        return [(run.name, run.added) for run in read_sweep(tmp_path).runs]

    add("0")
    assert add("0,1") == [("a-seed0", False), ("a-seed1", False)]
    _starts(tmp_path, "a-seed0")
    three = [("a-seed0", False), ("a-seed1", False), ("a-seed2", True)]
    assert add("0,1,2") == three and add("0,1,2") == three


# The definitions


@pytest.mark.parametrize("name", ["bridge", "forgetting", "sensitivity", "sparsify"])
def test_every_definition_composes_and_asks_only_for_its_own_arms(name, tmp_path):
    definition = read_definition(name)
    arms = {run.arm for run in plan(definition, ["seed=0"], tmp_path)}
    asked = {arm for question in definition.questions for pair in question.pairs for arm in pair}
    assert asked | ({definition.baseline} if definition.baseline else set()) <= arms


def test_the_evidence_holds_what_it_claims_to_compare(tmp_path):
    runs = plan(read_definition("evidence"), [], tmp_path)
    arms = {run.arm: run.composed.node.mifo for run in runs}
    assert len(runs) == 5 * len(arms) == 70 and {run.seed for run in runs} == {0, 1, 2, 3, 4}
    assert len({run.composed.node.mifo.budget.flops for run in runs}) == 1
    probes = {(one.probe.solved, one.probe.solved_accuracy, one.probe.hard) for one in arms.values()}
    assert probes == {(64, "3/4", 64)}
    ablation = [arms[arm] for arm in ("mifo", "entropy", "freezing", "plain")]
    assert {one.gate.max_accuracy for one in ablation} == {"1/8"}
    assert [(one.token_selector.name, one.constraint.name) for one in ablation] == [
        ("top_entropy", "strict"), ("top_entropy", "none"), ("all", "strict"), ("all", "none"),
    ]  # fmt: skip
    assert arms["mifo"].sft.optimizer == "separate"
    assert {one.sft.lr for one in arms.values()} == {1e-4}
    asked = {arm for one in read_definition("evidence").questions for pair in one.pairs for arm in pair}
    assert asked <= set(arms)


def test_every_method_but_the_ablations_of_mifo_is_compared_at_equal_compute(tmp_path):
    definition = read_definition("methods")
    methods = {file.stem for file in (config_folder() / "method").glob("*.yaml")}
    ablations = {"interleave_entropy", "interleave_freezing", "mifo_dagger", "random_mask", "random_tokens"}
    assert set(definition.arms) == methods - ablations
    assert all(own[0] == f"method={arm}" for arm, own in definition.arms.items())
    changed = {arm: own for arm, own in definition.arms.items() if len(own) > 1}
    runs = plan(replace(definition, arms=changed), ["seed=0"], tmp_path)
    assert len(runs) == len(changed) and {run.composed.node.mifo.budget.flops for run in runs} == {9e11}
    assert {run.composed.node.actor_rollout_ref.model.path for run in runs} == {str(START_MODEL)}


def test_these_are_the_definitions():
    names = sorted(file.stem for file in (config_folder() / "sweep").glob("*.yaml"))
    paper = ["paper_buffer", "paper_losses", "paper_templates"]
    assert names == ["bridge", "evidence", "forgetting", "fork_rl", "methods", *paper, "sensitivity", "sparsify"]


def test_the_papers_sweeps_have_its_sizes_losses_and_templates():
    buffer, losses, templates = map(read_definition, ("paper_buffer", "paper_losses", "paper_templates"))
    assert buffer.arms == {"S": ["buffer_size=8,16,64,128,256"]}
    swept = ["mifo/sft_loss=nll,dft", "rl=grpo,dapo"]
    assert losses.arms == {arm: [f"method={arm}", *swept] for arm in ("mifo", "sft_then_rl")}
    assert [*templates.arms] == ["none", "qwen", "prime", "luffy"]
    last = ["experiment=paper/qwen25_math_1_5b", "method=mifo", "mifo/sft_loss=dft", "rl=dapo", "buffer_size=256"]
    node = compose_config(last).node
    assert (node.mifo.sft_loss.name, node.mifo.schedule.size, node.algorithm.filter_groups.enable) == ("dft", 256, True)


def test_an_unknown_key_of_a_definition_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"key=arm must be one of .* \(did you mean arms\?\)"):
        parse(yaml.safe_load("arm: {a: method=mifo}"), tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("numbers: [acuracy]", r"numbers=acuracy must be one of accuracy, gain, .* \(did you mean accuracy\?\)"),
        ("questions: [{ask: Why, pairs: [], numbers: [accuracy, gain, sft/accuracy]}]", "must be one or two"),
        ("questions: [{ask: Why, pairs: [], numbers: []}]", "must be one or two"),
        ("questions: [{ask: Why, pair: []}]", r"key=pair must be one of ask, pairs, numbers \(did you mean pairs\?\)"),
    ],
)
def test_what_answers_a_question_is_checked_when_it_is_asked(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        parse(yaml.safe_load(text), tmp_path / "x.yaml")


def test_an_arm_of_a_question_that_the_definition_does_not_have_is_refused(tmp_path):
    definition = parse(
        yaml.safe_load(
            "{arms: {mifo: method=mifo, alone: method=rl_only}, questions: [{ask: Why, pairs: [[mifo, alnoe]]}]}"
        ),
        tmp_path / "x.yaml",
    )
    with pytest.raises(
        ConfigError, match=r"alnoe in the pairs of 'Why' must be one of mifo, alone \(did you mean alone\?\)"
    ):
        plan(definition, ["experiment=quickstart"], tmp_path)


def test_every_question_of_the_evidence_is_answered_by_one_number_and_those_on_cost_by_the_net():
    asked = [(question.pairs, question.numbers) for question in read_definition("evidence").questions]
    assert asked[0] == ([("mifo", "entropy"), ("freezing", "plain")], ["sft/net_accuracy"])
    assert asked[1] == ([("mifo", "freezing"), ("entropy", "plain")], ["sft/net_accuracy"])
    assert all(numbers == ["accuracy"] for _, numbers in asked[2:])


def test_forgetting_checks_both_stages_before_the_first(capsys):
    assert analyze(["forgetting", "rl_steps=0"]) == 2
    assert analyze(["forgetting", "mifo.sft.lr=-1", "seed=0"]) == 2
    said = capsys.readouterr().err
    assert "rl_steps=0 must be a whole number" in said and "mifo.sft.lr=-1 must be a number above 0" in said


def test_forgetting_goes_on_from_the_weights_after_rl_and_every_method_from_the_same(sweep_of, tmp_path, capsys):
    merged = []

    def merge(checkpoint: Path, dtype: str) -> Path:
        merged.append((checkpoint.relative_to(tmp_path), dtype))
        return START_MODEL

    given = [f"sweep_dir={tmp_path}/f", "seed=0,1", "rl_steps=4", "steps=2"]
    assert analyze(["forgetting", *given, "--plan"]) == 0
    planned = [line.split(":")[0].removeprefix(f"{tmp_path}/f/") for line in capsys.readouterr().out.splitlines()]
    methods = ("rl_only", "sft_only", "interleave", "mifo", "mifo_dagger")
    before = [f"rl-seed{seed}" for seed in (0, 1)]
    after = [f"{method}-seed{seed}" for method in methods for seed in (0, 1)]
    assert planned == [f"before/{name}" for name in before] + [f"after/{name}" for name in after]
    assert merged == [] and not (tmp_path / "f").exists()
    log = tmp_path / "started"
    log.write_text("")
    assert forgetting(given, FAKE, merge) == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == before + after
    assert merged == [(Path(f"f/before/rl-seed{seed}/checkpoints/global_step_4"), "float32") for seed in (0, 1)]
    for name in after:
        config = yaml.safe_load((tmp_path / "f" / "after" / name / "config.yaml").read_text())
        start = Path(config["actor_rollout_ref"]["model"]["path"])
        assert start == tmp_path / f"f/before/rl-seed{name[-1]}/model" and start.resolve() == START_MODEL.resolve()
        assert config["trainer"]["total_training_steps"] == 2
    first = yaml.safe_load((tmp_path / "f/before/rl-seed0/config.yaml").read_text())["trainer"]
    assert (first["total_training_steps"], first["save_freq"]) == (4, 4)
    plan_of_after = read_sweep(tmp_path / "f" / "after")
    assert plan_of_after.baseline == "rl_only"
    assert plan_of_after.command == f"mifo analyze forgetting {' '.join(given)}"
