"""The figures of a sweep's answers: which rows they have, and the intervals drawn, worked out by hand."""

import pytest

from mifo_verl.tools.sweep.definition import Question, against
from mifo_verl.tools.sweep.page import answers
from mifo_verl.tools.sweep.table import make_table

T = {0.95: 4.30265, 0.975: 6.20535}
"""Student's t at two degrees of freedom."""
ARMS = {
    "a": {"accuracy": {0: 0.50, 1: 0.52, 2: 0.54}, "entropy": {0: 1.0, 1: 2.0, 2: 3.0}},
    "b": {"accuracy": {0: 0.40, 1: 0.43, 2: 0.43}, "entropy": {0: 1.0, 1: 1.0, 2: 1.0}},
    "single": {"accuracy": {0: 0.30}},
}


def drawn(baseline="b", numbers=("accuracy",), questions=()):
    first = [against(baseline, list(ARMS), list(numbers))] if baseline else []
    return answers(make_table(ARMS, [*first, *questions]))


def test_the_means_of_all_arms_in_percent_with_the_values_of_their_seeds():
    bars, seeds = drawn()[0].data
    assert bars["y"] == ["a", "b", "single"]
    assert bars["x"] == pytest.approx([52.0, 42.0, 30.0])
    # deviations 2 and sqrt(3) points, over sqrt(3)
    assert bars["error_x"]["array"][:2] == pytest.approx([T[0.95] * 2 / 3**0.5, T[0.95]], abs=1e-3)
    assert bars["error_x"]["array"][2] is None
    assert seeds["y"] == [*"aaabbb", "single"]
    assert seeds["x"] == pytest.approx([50, 52, 54, 40, 43, 43, 30])


def test_the_differences_in_points_at_95_percent_and_with_all_tests_together():
    wide, plain = drawn()[1].data
    assert wide["name"] == "all 2 tests together"
    assert wide["y"] == plain["y"] == ["a − b", "single − b"]
    # 10, 9 and 11 points by seed: deviation 1
    assert wide["x"] == plain["x"] == pytest.approx([10.0, -10.0])
    assert plain["error_x"]["array"] == [pytest.approx(T[0.95] / 3**0.5, abs=1e-3), None]
    assert wide["error_x"]["array"] == [pytest.approx(T[0.975] / 3**0.5, abs=1e-3), None]


def test_a_pair_that_is_asked_twice_has_one_row_and_what_was_not_named_before_the_runs_has_none():
    asked = [Question("Again?", [("b", "a")], ["accuracy"]), Question("Late?", [("a", "single")], ["accuracy"], True)]
    means, differences = drawn(questions=asked)
    assert [bar["y"] for bar in differences.data] == [["a − b", "single − b"]] * 2
    assert means.title == "By arm: accuracy"


def test_every_number_that_was_named_has_its_two_figures_in_its_own_unit():
    figures = drawn(False, (), [Question("And this?", [("a", "b")], ["entropy", "accuracy"])])
    assert [one.title for one in figures] == [
        "By arm: entropy",
        "Differences in entropy",
        "By arm: accuracy",
        "Differences in accuracy",
    ]
    assert "What has no bar claims nothing" not in figures[1].note
    assert figures[1].data[1]["x"] == pytest.approx([1.0])  # no share: not times 100
    units = [one.layout["xaxis"]["title"]["text"] for one in figures]
    assert units == ["entropy", "entropy", "%", "points"]


def test_a_table_without_a_question_draws_nothing():
    assert drawn(False) == []


def test_a_pair_with_the_same_difference_for_every_seed_has_no_bar():
    arms = {"a": {"accuracy": {0: 0.5, 1: 0.75}}, "b": {"accuracy": {0: 0.25, 1: 0.5}}}
    _, differences = answers(make_table(arms, [against("b", ["a", "b"], ["accuracy"])]))
    assert [bar["x"] for bar in differences.data] == [[25.0], [25.0]]
    assert [bar["error_x"]["array"] for bar in differences.data] == [[None], [None]]
    assert differences.note.endswith("What has no bar claims nothing.")
