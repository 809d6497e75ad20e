"""A whole evaluation of the addition task's start model: the same numbers however often it is interrupted."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.data.parquet import write_rows
from mifo_verl.loop.streams import stable_seed, validation_streams
from mifo_verl.rewards import boxed
from mifo_verl.tools.evaluate.__main__ import evaluate, main
from mifo_verl.tools.evaluate.questions import load_set
from mifo_verl.tools.evaluate.run import requests
from mifo_verl.tools.evaluate.settings import Settings, parse_settings
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.tiny_model import START_MODEL

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    return addition.rows({1: 2, 2: 10, 3: 8}, "validation", 0)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "validation.parquet"
    write_rows(rows, path)
    return path


def settings_for(parquet, out, **changed):
    given = {"samples": 4, "temperature": 1.0, "max_tokens": 48, "batch": 16, "threads": 1}
    return Settings((str(START_MODEL),), (str(parquet),), out=out, engine="transformers", **given | changed)


@pytest.fixture(scope="module")
def done(tmp_path_factory, parquet):
    """One evaluation, what it returned and what it left."""
    out = tmp_path_factory.mktemp("whole")
    [table] = evaluate(settings_for(parquet, out))
    return out, table


def lines_of(out):
    [file] = out.glob("generations/*/*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_generation_is_kept_once_with_what_it_is(done, rows):
    lines = lines_of(done[0])
    asked = Counter((line["benchmark"], line["question"], line["sample"]) for line in lines)
    expected = {(row["data_source"], prompt_id_of(row), sample) for row in rows for sample in range(4)}
    assert set(asked) == expected and set(asked.values()) == {1}
    assert len({line["key"] for line in lines}) == 80
    assert all(line["model"] == done[1]["digest"] and line["sampling"]["temperature"] == 1.0 for line in lines)


def test_the_accuracy_is_that_of_the_training_reward_on_the_same_text(done, rows):
    """The reward as verl's reward loop calls it in validation, and verl's mean over a data source's responses."""
    truth = {prompt_id_of(row): row for row in rows}
    correct = {}
    for line in lines_of(done[0]):
        row = truth[line["question"]]
        result = boxed.compute_score(
            data_source=row["data_source"],
            solution_str=line["text"],
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info={**row["extra_info"], "num_turns": 2, "rollout_reward_scores": {}},
        )
        correct.setdefault(row["data_source"], []).append(result["acc"])
    for source, accs in correct.items():
        assert done[1]["benchmarks"][source]["metrics"]["avg"]["mean"] == pytest.approx(
            sum(accs) / len(accs), abs=1e-12
        )
    mean = sum(sum(accs) / len(accs) for accs in correct.values()) / len(correct)
    assert done[1]["average"]["avg"]["mean"] == pytest.approx(mean, abs=1e-12)
    assert 0 < mean < 1


def test_the_random_streams_are_those_of_validation_in_training(parquet, rows):
    tokenizer = AutoTokenizer.from_pretrained(START_MODEL)
    settings = settings_for(parquet, Path("unused"), seed=5)
    made = requests(tokenizer, load_set(str(parquet), None, 2, None), settings)
    streams = validation_streams([row["prompt"] for row in rows], [row["extra_info"]["index"] for row in rows])
    assert [request.seed for request in made] == [stable_seed(5, s, session) for s in streams for session in (0, 1)]
    rendered = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, return_dict=False)
    assert list(made[0].prompt_ids) == list(rendered)


def test_a_second_evaluation_generates_nothing_and_finds_the_same(done, parquet):
    out, table = done
    [file] = out.glob("generations/*/*.jsonl")
    before = file.read_bytes()
    assert evaluate(settings_for(parquet, out)) == [table]
    assert file.read_bytes() == before


def test_more_samples_add_only_what_is_missing(tmp_path, parquet):
    evaluate(settings_for(parquet, tmp_path, limit=3, samples=1))
    first = lines_of(tmp_path)
    evaluate(settings_for(parquet, tmp_path, limit=4, samples=2))
    assert lines_of(tmp_path)[:3] == first and len(lines_of(tmp_path)) == 8


@pytest.mark.parametrize("changed", [{"temperature": 0.9}, {"max_tokens": 40}, {"seed": 1}, {"template": "none"}])
def test_another_setting_is_another_generation(tmp_path, parquet, changed):
    evaluate(settings_for(parquet, tmp_path, limit=2, samples=1))
    evaluate(settings_for(parquet, tmp_path, limit=2, samples=1, **changed))
    assert len(lines_of(tmp_path)) == 4


def test_another_question_under_the_same_id_is_another_generation(tmp_path):
    for text in ("1+1=?", "1+2=?"):
        file = tmp_path / "mine.jsonl"
        file.write_text(json.dumps({"id": "x", "question": text, "answer": "2"}) + "\n")
        evaluate(settings_for(file, tmp_path / "out", samples=1, template="none"))
    assert len(lines_of(tmp_path / "out")) == 2


def run_and_kill(parquet, out, at_least):
    """An evaluation in a process of its own, killed as soon as so many generations are kept."""
    command = [sys.executable, "-m", "mifo_verl.tools.evaluate", f"model={START_MODEL}", f"benchmarks=[{parquet}]"]
    command += [
        f"out={out}",
        "samples=4",
        "temperature=1.0",
        "max_tokens=48",
        "batch=16",
        "threads=1",
        "engine=transformers",
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if sum(file.read_bytes().count(b"\n") for file in out.glob("generations/*/*.jsonl")) >= at_least:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [file] = out.glob("generations/*/*.jsonl")
    return file


def test_a_killed_evaluation_goes_on_without_losing_or_repeating_a_generation(tmp_path, parquet, done):
    file = run_and_kill(parquet, tmp_path, at_least=19)  # 19 of 80: one batch of 16, and in the middle of the second
    kept = file.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    assert 19 <= whole.count(b"\n") < 80
    file.write_bytes(whole + b'{"key": "torn", "te')  # as if it had died in the middle of a line, too
    [table] = evaluate(settings_for(parquet, tmp_path))
    assert file.read_bytes().startswith(whole)
    key = lambda line: line["key"]  # noqa: E731
    assert sorted(lines_of(tmp_path), key=key) == sorted(lines_of(done[0]), key=key)
    assert table == done[1]
    assert (tmp_path / "results.csv").read_bytes() == (done[0] / "results.csv").read_bytes()


def test_json_csv_and_console_tell_the_same(done, capsys):
    out, table = done
    assert json.loads((out / "results.json").read_text()) == {"format": 1, "models": [json.loads(json.dumps(table))]}
    with open(out / "results.csv") as file:
        read = list(csv.DictReader(file))
    metrics = {(row["benchmark"], row["metric"]): float(row["mean"]) for row in read}
    for name, result in table["benchmarks"].items():
        for metric, value in result["metrics"].items():
            assert metrics[name, metric] == value["mean"]
    assert metrics["average", "pass@4"] == table["average"]["pass@4"]["mean"]
    page = (out / "pass_at_k.html").read_text()
    assert "addition_start, pass@k" in page and (out / "plotly.min.js").is_file() and "https://cdn" not in page


def test_truncation_and_length_are_counted(tmp_path, parquet):
    [table] = evaluate(settings_for(parquet, tmp_path, samples=1, max_tokens=3))
    for result in table["benchmarks"].values():
        assert result["truncated_share"] == 1.0 and result["mean_tokens"] == 3.0
        assert result["metrics"]["avg"]["mean"] == 0.0


def test_a_response_that_cannot_fit_is_an_error_before_anything_is_generated(tmp_path, parquet, capsys):
    code = main(
        [f"model={START_MODEL}", f"benchmarks=[{parquet}]", f"out={tmp_path}", "max_tokens=512", "engine=transformers"]
    )
    assert code == 2
    assert "max_tokens=512 must leave room in the model's 512 positions" in capsys.readouterr().err
    assert not (tmp_path / "generations").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ""),
        (["benchmarks=[gsm8k]"], "model= must be given"),
        (["model=x"], "benchmarks= must be given"),
        (["modell=x"], "did you mean model"),
        (["model=/nowhere", "benchmarks=[aime24]", "data=/nowhere"], "data=/nowhere must be an existing folder"),
        (["model=x", "benchmarks=[x.jsonl]", "samples=0"], "samples=0 must be"),
        (["model=x", "benchmarks=[x.jsonl]", "samples=many"], "samples=many must be a whole number"),
        (["model=x", "benchmarks=[x.jsonl]", "samples=2", "temperature=0"], "samples=2 must be 1 at temperature=0"),
        (["model=x", "benchmarks=[x.jsonl]", "top_p=0"], "top_p=0.0 must be in (0, 1]"),
        (["model=x", "benchmarks=[x.jsonl]", "engine=vlm"], "did you mean vllm"),
        (["model=x", "benchmarks=[x.jsonl]", "require_think=yes"], "require_think=yes must be true or false"),
        (["model=x", "benchmarks=[x.jsonl]", "system=hi", "template=qwen"], "system=hi must be left away"),
        (["model=x", "benchmarks=[x.jsonl]", "k=[0]"], "k=[0] must be"),
        (["compare"], "at least two models"),
        (["compare", "/nowhere"], "compare /nowhere must be"),
    ],
)
def test_what_a_user_can_fix_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    if arguments:
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
        assert message in printed.err
    else:
        assert "usage:" in printed.out


def test_templates_may_be_written_with_capitals():
    for name in ("Qwen", "Prime", "LUFFY", "none"):
        assert parse_settings(["model=x", "benchmarks=[x.jsonl]", f"template={name}"]).template == name.lower()


def test_a_model_that_is_not_there_is_an_error_that_says_what_would_be_one(tmp_path, parquet, capsys):
    assert main([f"model={tmp_path}/no", f"benchmarks=[{parquet}]", f"out={tmp_path}"]) == 2
    assert "must be a Hugging Face folder with a config.json, a run" in capsys.readouterr().err


def test_a_benchmark_given_twice_is_an_error(parquet, tmp_path, capsys):
    assert main([f"model={START_MODEL}", f"benchmarks=[{parquet},{parquet}]", f"out={tmp_path}"]) == 2
    assert "must give addition/level_1, addition/level_2, addition/level_3 once" in capsys.readouterr().err
