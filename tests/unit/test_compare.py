"""Comparisons say what can be claimed, what cannot, and what makes two results hard to compare."""

import json

import pytest

from mifo_verl.tools.evaluate.__main__ import main
from mifo_verl.tools.evaluate.compare import Compared, differences, read_models, sentence, warnings
from mifo_verl.tools.evaluate.results import QuestionResult, model_table
from mifo_verl.tools.statistics import Interval, bootstrap

SETTINGS = {"template": "qwen", "temperature": 0.6, "max_tokens": 64, "seed": 0}


def benchmark(name, corrects, num_samples=1, first=0):
    questions = [
        QuestionResult(f"q{first + n}", num_samples, c, {1: c / num_samples}, 10.0, 0) for n, c in enumerate(corrects)
    ]
    return name, questions


def model(name, *benchmarks, **settings):
    return model_table(name, f"/{name}", name * 8, dict(benchmarks), SETTINGS | settings)


def write(folder, *models):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"format": 1, "models": models}))
    return folder


def said(first, second):
    [difference] = differences([first, second])
    return sentence(difference)


def test_a_clear_difference_is_a_claim_with_its_interval():
    second = [1, 0] * 100
    first = [1, 1] * 20 + [1, 0] * 80  # 20 of 200 more
    ours, theirs = model("A", benchmark("gsm8k", first)), model("B", benchmark("gsm8k", second))
    [difference] = differences([ours, theirs])
    low, high = 100 * difference.paired.low, 100 * difference.paired.high
    assert 5 < low < 7 and 13 < high < 15  # 10 +- 1.96 * sqrt(0.1 * 0.9 / 200) = 4.2
    assert sentence(difference) == (
        f"A - B on gsm8k: +10 points [{low:+.3g}, {high:+.3g}], 200 questions: higher. A difference below "
        f"{(high - low) / 2:.3g} points could not have been claimed."
    )
    # told from the other side, it is the same claim
    assert said(theirs, ours).startswith("B - A on gsm8k: -10 points [") and ": lower." in said(theirs, ours)


def test_an_interval_that_holds_zero_is_no_claim():
    first, second = [1, 0, 1, 0] * 10, [0, 1, 1, 0] * 10
    text = said(model("A", benchmark("b", [*first, 1])), model("B", benchmark("b", [*second, 0])))
    assert text.startswith("A - B on b: +2.44 points [-") and ": no claim; the interval allows up to" in text


def test_equal_answers_are_no_claim_and_no_proof_that_there_is_no_difference():
    text = said(model("A", benchmark("b", [1, 0] * 20)), model("B", benchmark("b", [1, 0] * 20)))
    # 1 - 0.025 ** (1 / 40) = 8.81 % of the questions may be unlike these
    assert text.startswith("A - B on b: +0 points [-8.81, +8.81], 40 questions: no claim; ")


def test_few_questions_are_said():
    text = said(model("A", benchmark("b", [1] * 10)), model("B", benchmark("b", [0] * 10)))
    # 1 - 0.025 ** (1 / 10) = 30.8 %, and at worst these are the other way round
    assert text.startswith("A - B on b: +100 points [+38.3, +100], 10 questions: higher.")
    assert text.endswith("Only 10 questions: read the interval as wider than it is.")


def test_a_claim_that_falls_to_the_number_of_tests_says_so():
    alone, together = Interval(0.02, 0.001, 0.04, 200), Interval(0.02, -0.005, 0.045, 200)
    assert "read alone; among all 6 tests no claim (Bonferroni)" in sentence(
        Compared("A", "B", "avg", alone, together, 6, benchmark="b")
    )


def test_the_corrected_interval_is_that_of_a_level_divided_by_all_pairs_benchmarks_and_metrics():
    answers = {"A": [2, 0, 2], "B": [2, 0, 0], "C": [1, 0, 1]}
    models = [model(name, *(benchmark(b, own * 30, 2) for b in ("x", "y"))) for name, own in answers.items()]
    found = differences(models, ["avg", "pass@1"])
    # 3 pairs, by x, y and their average, by 2 metrics
    assert len(found) == 18 and {one.num_tests for one in found} == {18}
    assert [(one.number, one.benchmark) for one in found[:6]] == [
        (metric, name) for metric in ("avg", "pass@1") for name in ("x", "y", "average")
    ]
    expected = bootstrap([[0.0, 0.0, 1.0] * 30], 1 - 0.05 / 18, bounds=(-1, 1))
    assert found[0].corrected == expected and expected.low < found[0].paired.low
    assert {one.num_tests for one in differences(models)} == {9}


def test_questions_are_paired_by_their_id_and_not_by_their_place():
    first = benchmark("b", [1, 1, 0, 0])
    second = ("b", list(reversed(benchmark("b", [1, 1, 0, 0])[1])))
    [difference] = differences([model("A", first), model("B", second)])
    assert (difference.paired.mean, difference.paired.high) == (0.0, pytest.approx(1 - 0.025**0.25))


def test_only_common_questions_are_compared_and_that_is_said():
    first, second = model("A", benchmark("b", [1] * 50)), model("B", benchmark("b", [0] * 50, first=10))
    [difference] = differences([first, second])
    assert difference.paired.num_values == 40
    assert warnings([first, second]) == [
        "A and B answered different questions of b: 50 and 50, 40 in common; only those are compared."
    ]


def test_the_average_is_over_the_benchmarks_that_both_have():
    a = model("A", benchmark("x", [1] * 40), benchmark("y", [1, 0] * 20), benchmark("z", [1]))
    b = model("B", benchmark("x", [0] * 40), benchmark("y", [1, 0] * 20))
    found = differences([a, b])
    assert [one.benchmark for one in found] == ["x", "y", "average"]
    assert found[-1].paired.mean == pytest.approx((1 + 0) / 2)
    assert warnings([a, b]) == ["A and B: only one of them was evaluated on z; it is left out of the comparison."]


def test_settings_and_samples_that_differ_are_said():
    a = model("A", benchmark("b", [1, 0]))
    b = model("B", benchmark("b", [2, 0], num_samples=2), temperature=1.0, seed=1)
    assert warnings([a, b]) == [
        "A and B were evaluated with temperature=0.6 and temperature=1.0.",
        "A and B have 1 and 2 samples a question of b.",
    ]
    assert warnings([a, model("C", benchmark("b", [0, 0]))]) == []


def test_the_command_reads_folders_and_files_and_prints_the_claims(tmp_path, capsys):
    a = write(tmp_path / "a", model("A", benchmark("b", [1, 1, 0, 1] * 30)))
    b = write(tmp_path / "b", model("B", benchmark("b", [1, 0, 0, 1] * 30)))
    assert main(["compare", str(a), str(b / "results.json")]) == 0
    out = capsys.readouterr().out
    assert "A - B on b: +25 points [" in out and "questions: higher." in out
    assert "One test at 95 %, 10,000 bootstrap draws, 250 beyond each end of an interval." in out
    c = write(tmp_path / "c", model("C", benchmark("b", [1, 0, 0, 0] * 30)))
    assert main(["compare", str(a), str(b), str(c), "metric=[avg,pass@1]"]) == 0
    out = capsys.readouterr().out
    assert "A - C on b: +50 points [" in out and "A - C on b in pass@1: +50 points [" in out
    assert "6 tests (pairs of models by benchmarks by metrics) at 95 %" in out and "about 0.3 would look" in out
    assert "24,000 bootstrap draws, 100 beyond each end" in out  # 100 / (0.05 / 6 / 2)
    assert main(["compare", str(a), str(b), "metric=pass@1"]) == 0
    assert "A - B on b in pass@1: +25 points [" in capsys.readouterr().out
    assert main(["compare", str(a), str(b), "metric=[avg,pass@64]"]) == 2
    assert "a common benchmark with metric=pass@64" in capsys.readouterr().err


def test_models_of_the_same_name_are_told_apart_by_where_they_came_from(tmp_path):
    folders = [write(tmp_path / name, model("A", benchmark("b", [1]))) for name in ("x", "y")]
    names = [found["name"] for found in read_models([str(folder) for folder in folders])]
    assert names == [f"A ({folder})" for folder in folders]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "models": []}'])
def test_what_is_no_result_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=f"compare {tmp_path} must be a results.json"):
        read_models([str(tmp_path), str(tmp_path)])
