"""From verdicts to a benchmark's numbers, by hand."""

import json

import pytest

from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.evaluate.results import (
    Generation,
    average,
    model_table,
    question_result,
    results_of,
)
from mifo_verl.tools.evaluate.run import generation_key
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.tools.statistics import bootstrap

RIGHT, WRONG = Verdict(1.0, True), Verdict(0.0, False)


def made(*texts, stop="completed"):
    return [Generation(text, len(text), stop) for text in texts]


def result(name, *counts, num_samples=4):
    """A benchmark of questions with so many correct responses each; the wrong ones all say 7."""
    questions = []
    for number, count in enumerate(counts):
        texts = made(*["\\boxed{1}"] * count, *["\\boxed{7}"] * (num_samples - count))
        verdicts = [RIGHT] * count + [WRONG] * (num_samples - count)
        questions.append(question_result(f"{name}-{number}", texts, verdicts, [1, 2, 4]))
    return questions


def test_correctness_is_the_rewards_correctness_and_not_its_score():
    shaped = [Verdict(0.1, True), Verdict(0.2, True), Verdict(1.0, False)]
    assert question_result("q", made("a", "b", "c"), shaped, [1]).num_correct == 2


def test_wrong_answers_vote_by_what_their_last_box_holds():
    texts = made("\\boxed{5}", "\\boxed{07}", "x \\boxed{7}", "</think> no box")
    found = question_result("q", texts, [RIGHT, WRONG, WRONG, WRONG], [1, 3, 4])
    assert found.majority[4] == 0.0  # 7 has two votes, 5 one
    # the 4 triples: {5,7,7} wrong, {5,7,-} twice by lot, {7,7,-} wrong
    assert found.majority[3] == pytest.approx((0 + 1 / 2 + 1 / 2 + 0) / 4)


def test_a_box_inside_the_reasoning_is_no_vote():
    texts = made("<think>\\boxed{7}</think> none", "<think>\\boxed{7}</think> none", "\\boxed{5}")
    assert question_result("q", texts, [WRONG, WRONG, RIGHT], [3]).majority[3] == 1.0


def test_a_wrong_answer_without_a_box_votes_by_what_the_reward_read():
    letters = [Verdict(0.0, False, "B"), Verdict(0.0, False, "B"), Verdict(1.0, True, "A")]
    assert question_result("q", made("so B", "B.", "A!"), letters, [3]).majority[3] == 0.0


def test_correct_answers_are_one_vote_however_they_are_written():
    texts = made("\\boxed{0.5}", "\\boxed{1/2}", "\\boxed{7}")
    assert question_result("q", texts, [RIGHT, RIGHT, WRONG], [3]).majority[3] == 1.0


def test_lengths_and_cuts_are_of_all_responses():
    texts = made("abc", stop="length") + made("a")
    one = question_result("q", texts, [WRONG, WRONG], [1])
    assert (one.mean_tokens, one.num_truncated) == (2.0, 1)
    two = question_result("r", made("abcdefgh", "ij"), [WRONG, WRONG], [1])
    both = model_table("m", "/m", "0", {"b": [one, two]}, {})["benchmarks"]["b"]
    assert both["mean_tokens"] == pytest.approx((2 + 5) / 2)
    assert both["truncated_share"] == 1 / 4


def test_a_benchmarks_metrics_are_means_over_its_questions():
    found = result("b", 0, 1, 4)
    assert found[0].metrics == ["avg", "pass@1", "pass@2", "pass@4", "maj@2", "maj@4"]
    means = {name: value["mean"] for name, value in model_table("m", "/m", "0", {"b": found}, {})["average"].items()}
    assert means["avg"] == means["pass@1"] == pytest.approx((0 + 1 / 4 + 1) / 3)
    assert means["pass@2"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert means["maj@4"] == pytest.approx((0 + 0 + 1) / 3)


def test_ks_beyond_the_samples_are_left_out():
    assert list(question_result("q", made("a", "b"), [WRONG] * 2, [1, 2, 4]).majority) == [1, 2]
    settings = Settings(("m",), ("b.jsonl",), k=(1, 8, 64))
    assert settings.ks(32) == (1, 8)


@pytest.mark.parametrize(("samples", "ks"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (32, (1, 2, 4, 8, 16, 32))])
def test_the_ks_are_powers_of_two_and_all_samples_where_none_are_asked_for(samples, ks):
    assert Settings(("m",), ("b.jsonl",)).ks(samples) == ks


def test_the_average_has_the_metrics_that_all_benchmarks_have():
    one = result("one", 2, 4)
    other = [question_result("o", made("\\boxed{1}"), [RIGHT], [1])]
    found = average({"one": one, "other": other})
    assert list(found) == ["avg", "pass@1"]
    assert found["avg"] == bootstrap([[0.5, 1.0], [1.0]])
    assert found["avg"].mean == pytest.approx((0.75 + 1.0) / 2)


def test_results_read_from_json_give_the_same_numbers():
    found = result("b", 0, 1, 3, 4)
    table = json.loads(json.dumps(model_table("m", "/m", "0" * 64, {"b": found}, {"seed": 0})))
    assert results_of(table) == {"b": found}
    value = bootstrap([[0.0, 0.25, 0.75, 1.0]])
    assert table["benchmarks"]["b"]["metrics"]["avg"] == {"mean": 0.5, "low": value.low, "high": value.high}


@pytest.mark.parametrize(
    "other",
    [
        ("e", "b", "q", 0, (1, 2), {"seed": 0, "dtype": "x"}),
        ("d", "c", "q", 0, (1, 2), {"seed": 0, "dtype": "x"}),
        ("d", "b", "r", 0, (1, 2), {"seed": 0, "dtype": "x"}),
        ("d", "b", "q", 1, (1, 2), {"seed": 0, "dtype": "x"}),
        ("d", "b", "q", 0, (1, 3), {"seed": 0, "dtype": "x"}),
        ("d", "b", "q", 0, (1, 2), {"seed": 1, "dtype": "x"}),
    ],
)
def test_a_key_depends_on_everything_that_a_generation_depends_on(other):
    key = generation_key("d", "b", "q", 0, (1, 2), {"seed": 0, "dtype": "x"})
    assert key == generation_key("d", "b", "q", 0, [1, 2], {"dtype": "x", "seed": 0})
    assert generation_key(*other) != key
