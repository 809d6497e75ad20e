"""Comparisons say what can be claimed, what cannot, and what makes two results hard to compare."""

import json

import pytest

from mifo_verl.tools.evaluate.__main__ import main
from mifo_verl.tools.evaluate.bootstrap import Interval, paired
from mifo_verl.tools.evaluate.compare import Difference, differences, read_models, sentence, warnings
from mifo_verl.tools.evaluate.results import BenchmarkResult, QuestionResult, model_table

SETTINGS = {"template": "qwen", "temperature": 0.6, "max_tokens": 64, "seed": 0}


def benchmark(name, corrects, num_samples=1, first=0):
    questions = [
        QuestionResult(f"q{first + n}", num_samples, c, {1: c / num_samples}, 10.0, 0) for n, c in enumerate(corrects)
    ]
    return BenchmarkResult(name, tuple(questions))


def model(name, *benchmarks, **settings):
    return model_table(name, f"/{name}", name * 8, benchmarks, SETTINGS | settings)


def write(folder, *models):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"format": 1, "models": models}))
    return folder


def said(first, second, count=1):
    [difference] = differences([first, second])
    return sentence(difference, count)


def test_a_clear_difference_is_a_claim_with_its_interval():
    second = [1, 0] * 100
    first = [1, 1] * 20 + [1, 0] * 80  # 20 of 200 more
    difference = paired([[float(c) for c in first]], [[float(c) for c in second]])
    low, high = 100 * difference.low, 100 * difference.high
    expected = f"A beats B on gsm8k by 10.0 points [{low:.1f}, {high:.1f}]."
    assert said(model("A", benchmark("gsm8k", first)), model("B", benchmark("gsm8k", second))) == expected
    # told from the other side, it is the same claim
    assert said(model("B", benchmark("gsm8k", second)), model("A", benchmark("gsm8k", first))) == expected
    assert 5 < low < 7 and 13 < high < 15  # 1.96 * sqrt(0.1 * 0.9 / 200) = 4.2


def test_an_interval_that_holds_zero_is_no_claim():
    first, second = [1, 0, 1, 0] * 10, [0, 1, 1, 0] * 10
    text = said(model("A", benchmark("b", [*first, 1])), model("B", benchmark("b", [*second, 0])))
    assert "+2.4 points [" in text and text.endswith("no claim: the interval holds 0.")


def test_equal_answers_are_no_claim():
    text = said(model("A", benchmark("b", [1, 0] * 20)), model("B", benchmark("b", [1, 0] * 20)))
    assert text == "A and B are equal on all questions on b: no claim."


def test_few_questions_are_said():
    text = said(model("A", benchmark("b", [1] * 10)), model("B", benchmark("b", [0] * 10)))
    assert text == (
        "A beats B on b by 100.0 points [100.0, 100.0]; only 10 questions: read the interval as wider than it is."
    )


def test_a_claim_that_falls_to_the_number_of_comparisons_says_so():
    difference = Difference("A", "B", "b", "avg", 200, Interval(2.0, 0.1, 4.0), Interval(2.0, -0.5, 4.5))
    assert sentence(difference, 1) == "A beats B on b by 2.0 points [0.1, 4.0]."
    assert sentence(difference, 6) == (
        "A beats B on b by 2.0 points [0.1, 4.0], read alone; among these 6 comparisons it is no claim (Bonferroni)."
    )


def test_the_corrected_interval_is_that_of_a_level_divided_by_the_comparisons():
    models = [model(name, benchmark("b", [1, 0, *extra] * 30)) for name, extra in (("A", [1]), ("B", [0]), ("C", [0]))]
    found = differences(models)
    assert [(one.first, one.second) for one in found] == [("A", "B"), ("A", "C"), ("B", "C")]
    expected = paired([[1.0, 0.0, 1.0] * 30], [[1.0, 0.0, 0.0] * 30], 1 - 0.05 / 3)
    assert found[0].corrected.low == pytest.approx(100 * expected.low)
    assert found[0].corrected.low < found[0].points.low


def test_questions_are_paired_by_their_id_and_not_by_their_place():
    first = benchmark("b", [1, 1, 0, 0])
    second = BenchmarkResult("b", tuple(reversed(benchmark("b", [1, 1, 0, 0]).questions)))
    [difference] = differences([model("A", first), model("B", second)])
    assert (difference.points.low, difference.points.high) == (0.0, 0.0)


def test_only_common_questions_are_compared_and_that_is_said():
    first, second = model("A", benchmark("b", [1] * 50)), model("B", benchmark("b", [0] * 50, first=10))
    [difference] = differences([first, second])
    assert difference.num_questions == 40
    assert warnings([first, second]) == [
        "A and B answered different questions of b: 50 and 50, 40 in common; only those are compared."
    ]


def test_the_average_is_over_the_benchmarks_that_both_have():
    a = model("A", benchmark("x", [1] * 40), benchmark("y", [1, 0] * 20), benchmark("z", [1]))
    b = model("B", benchmark("x", [0] * 40), benchmark("y", [1, 0] * 20))
    found = differences([a, b])
    assert [one.benchmark for one in found] == ["x", "y", "average"]
    assert found[-1].points.mean == pytest.approx((100 + 0) / 2)
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
    assert "A beats B on b by 25.0 points [" in out and "comparisons at" not in out
    c = write(tmp_path / "c", model("C", benchmark("b", [1, 0, 0, 0] * 30)))
    assert main(["compare", str(a), str(b), str(c)]) == 0
    out = capsys.readouterr().out
    assert "A beats C on b by 50.0 points [" in out and "3 comparisons at 95 %" in out
    assert main(["compare", str(a), str(b), "metric=pass@1"]) == 0
    assert "A beats B on b in pass@1 by 25.0 points" in capsys.readouterr().out
    assert main(["compare", str(a), str(b), "metric=pass@64"]) == 2


def test_models_of_the_same_name_are_told_apart_by_where_they_came_from(tmp_path):
    folders = [write(tmp_path / name, model("A", benchmark("b", [1]))) for name in ("x", "y")]
    names = [found["name"] for found in read_models([str(folder) for folder in folders])]
    assert names == [f"A ({folder})" for folder in folders]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "models": []}'])
def test_what_is_no_result_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=f"compare {tmp_path} must be a results.json"):
        read_models([str(tmp_path), str(tmp_path)])
