"""Means, intervals and paired differences over seeds, by hand; and what may be claimed of them."""

import math

import pytest

from mifo_verl.report.bands import t_cdf, t_quantile
from mifo_verl.sweep.definition import Question
from mifo_verl.sweep.numbers import compute_of
from mifo_verl.sweep.show import to_csv, to_markdown
from mifo_verl.sweep.statistics import interval, paired
from mifo_verl.sweep.table import claim, compared, make_table, num_comparisons


@pytest.mark.parametrize(
    ("freedom", "probability", "value"),
    [
        (1, 0.975, 12.7062),
        (2, 0.975, 4.3027),
        (4, 0.975, 2.7764),
        (4, 0.995, 4.6041),
        (9, 0.975, 2.2622),
        (30, 0.975, 2.0423),
    ],
)
def test_quantiles_are_those_of_the_printed_tables(freedom, probability, value):
    assert t_quantile(freedom, probability) == pytest.approx(value, abs=5e-5)


def test_one_degree_of_freedom_is_cauchy_and_half_lies_below_0():
    assert t_cdf(1.0, 1) == pytest.approx(0.75)
    assert [t_cdf(0.0, freedom) for freedom in (1, 2, 5, 8)] == [0.5] * 4


def test_the_interval_of_five_values_by_hand():
    # mean 3, standard deviation sqrt(2.5), half = 2.7764 * sqrt(2.5 / 5)
    found = interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(0.5)
    assert (found.mean, found.num_seeds) == (3.0, 5)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_a_pair_cancels_what_the_seed_does_to_both_and_needs_common_seeds():
    first, second = {0: 10.0, 1: 20.0, 2: 30.0, 7: 99.0}, {0: 9.0, 1: 18.0, 2: 27.0}
    found = paired(first, second)
    # differences 1, 2, 3: mean 2, deviation 1, half = 4.3027 / sqrt(3)
    assert found.mean == 2.0 and found.num_seeds == 3
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3))
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_interval_and_no_claim():
    found = interval([0.5])
    assert (found.low, found.high) == (None, None) and not found.excludes_zero()
    assert not interval([0.25, 0.25]).excludes_zero()  # of no width


ARMS = {
    "mifo": {"accuracy": {0: 0.50, 1: 0.52, 2: 0.54}, "flops": {0: 1e9, 1: 1e9, 2: 1e9}},
    "rl": {"accuracy": {0: 0.40, 1: 0.43, 2: 0.43}, "flops": {0: 2e9}},
    "noisy": {"accuracy": {0: 0.10, 1: 0.90, 2: 0.40}},
}


def test_a_claim_says_what_it_rests_on():
    one, two = (claim(found) for found in compared(ARMS, [("mifo", "rl"), ("noisy", "rl")], ["accuracy"], 2)[:2])
    # differences 10, 9, 11 points; half = 4.3027 / sqrt(3) = 2.48; at 97.5 % it is 6.2053 / sqrt(3)
    assert one == "mifo - rl: +10 points [+7.52, +12.5], 3 seeds: higher."
    # differences -30, 47, -3: mean 4.67, deviation 39.1; half = 4.3027 * 39.1 / sqrt(3) = 97.0
    assert two.endswith("no claim; the interval allows up to 1e+02 points in size.")


def test_what_holds_only_read_alone_is_said_to():
    # differences 4, 5, 9: mean 6, deviation 2.65; half 6.57 at 95 % would hold 0; 5, 6, 9: half 5.17, corrected 7.46
    arms = {"a": {"accuracy": {0: 0.05, 1: 0.06, 2: 0.09}}, "b": {"accuracy": dict.fromkeys(range(3), 0.0)}}
    arms |= {"c": {"accuracy": {0: 0.0, 1: 0.001, 2: -0.001}}}
    first, _ = compared(arms, [("a", "b"), ("c", "b")], ["accuracy"], 2)
    assert first.paired.excludes_zero() and not first.corrected.excludes_zero()
    assert "higher, read alone; among the 2 pairs of this page no claim (Bonferroni)" in claim(first)


def test_the_same_difference_for_every_seed_is_no_claim():
    arms = {"a": {"accuracy": {0: 0.5, 1: 0.5}}, "b": {"accuracy": {0: 0.25, 1: 0.25}}}
    assert "no interval can be made of: no claim" in claim(compared(arms, [("a", "b")], ["accuracy"], 1)[0])


def test_the_table_compares_every_arm_with_the_baseline_and_answers_the_questions():
    table = make_table(ARMS, "rl", ["accuracy"], [Question("Why?", [("mifo", "noisy"), ("mifo", "gone")])])
    told = [(one["first"], one["second"], one["number"]) for one in table["differences"]]
    assert told == [("mifo", "rl", "accuracy"), ("noisy", "rl", "accuracy"), ("mifo", "rl", "flops")]
    answers = [(one["first"], one["second"]) for one in table["questions"][0]["differences"]]
    assert answers == [("mifo", "noisy")] and table["questions"][0]["missing"] == [("mifo", "gone")]
    assert "mifo - gone: no runs to compare yet." in to_markdown(table, "", "x")
    assert make_table(ARMS, False, ["accuracy"], [])["differences"] == []


SOLVED = "sft/solved_accuracy"
PROBED = {
    "a": {"accuracy": {0: 0.5, 1: 0.51, 2: 0.52}, SOLVED: {0: 0.1, 1: 0.11, 2: 0.13}, "gain": {0: 0.1, 1: 0.2, 2: 0.3}},
    "b": {
        "accuracy": {0: 0.4, 1: 0.42, 2: 0.40},
        SOLVED: {0: 0.0, 1: 0.01, 2: 0.02},
        "gain": {0: 0.0, 1: 0.1, 2: 0.21},
    },
    "c": {"accuracy": {0: 0.3, 1: 0.33, 2: 0.30}, SOLVED: {0: 0.0, 1: 0.05, 2: 0.01}, "gain": {0: 0.3, 1: 0.2, 2: 0.0}},
}


def test_every_pair_of_a_page_counts_once_whichever_way_round_and_in_every_question():
    assert num_comparisons(PROBED, [("a", "b"), ("b", "a"), ("c", "b"), ("a", "gone")]) == 2
    questions = [Question("One?", [("b", "a")], [SOLVED]), Question("Two?", [("a", "c")], [SOLVED])]
    table = make_table(PROBED, "b", ["accuracy"], questions)
    told = [*table["differences"], *(one for question in table["questions"] for one in question["differences"])]
    assert table["num_comparisons"] == 3 and {one["num_comparisons"] for one in told} == {3}


def test_one_page_says_one_thing_of_a_pair_and_a_number():
    # differences 5, 6, 9 points: half of the interval is 5.17 for one pair and 7.46 for the two of the page
    arms = {"a": {"accuracy": {0: 0.05, 1: 0.06, 2: 0.09}}, "b": {"accuracy": dict.fromkeys(range(3), 0.0)}}
    arms |= {"c": {"accuracy": {0: 0.0, 1: 0.001, 2: -0.001}}}
    table = make_table(arms, "b", ["accuracy"], [Question("Alone?", [("a", "b")])])
    (against, *_), (answer,) = table["differences"], table["questions"][0]["differences"]
    assert against["claim"] == answer["claim"] and "no claim (Bonferroni)" in answer["claim"]


def test_only_numbers_named_before_the_runs_are_claimed_and_every_other_is_exploratory_once():
    table = make_table(PROBED, "b", ["accuracy"], [Question("Cost?", [("a", "b")], [SOLVED])])
    (question,) = table["questions"]
    assert [(one["number"], one["is_primary"]) for one in question["differences"]] == [(SOLVED, True), ("gain", False)]
    assert question["differences"][0]["claim"].endswith("3 seeds: higher.")
    assert question["differences"][1]["claim"].endswith("exploratory, no claim.")  # 10, 10 and 9 points
    against = [(one["first"], one["number"]) for one in table["differences"] if not one["is_primary"]]
    assert ("a", SOLVED) not in against and ("c", SOLVED) in against
    page = to_markdown(table, "", "x")
    assert page.count("| a - b | gain | +0.0967 |") == 1 and "Answered by: SFT: solved_accuracy." in page
    assert "exploratory: 1 differences in other numbers, of which 1 have an interval without 0, where 0.1 would" in page
    assert "m = 2 being the distinct" in page and "corrects for pairs, not for numbers" in page


def test_csv_and_markdown_have_every_number_of_the_table():
    table = make_table(ARMS, "rl", ["accuracy"], [Question("Why?", [("mifo", "noisy")])])
    lines = to_csv(table).splitlines()
    assert lines[0] == "arm,number,num_seeds,mean,low,high,by_seed" and len(lines) == 1 + 5
    assert (
        lines[2] == "mifo,flops,3,1000000000.0,1000000000.0,1000000000.0,0:1000000000.0 1:1000000000.0 2:1000000000.0"
    )
    page = to_markdown(table, "Title", "python -m mifo_verl.sweep x")
    assert "| mifo | 3 | 0.5200 ± 0.0497 |" in page and "## Why?" in page and "## Against rl" in page


def test_what_sft_lost_for_what_it_gained_is_the_ratio_of_the_means():
    arms = {"a": {"sft/solved_accuracy": {0: -0.1, 1: 0.0}, "sft/hard_accuracy": {0: 0.1, 1: 0.3}}}
    arms |= {"b": {"sft/solved_accuracy": {0: -0.1}, "sft/hard_accuracy": {0: -0.1}}}
    page = to_markdown(make_table(arms, False, ["accuracy"], []), "", "x")
    assert "| a | +0.0500 | +0.2000 | 0.25 |" in page  # 0.05 lost for 0.2 gained
    assert "| b | +0.1000 | -0.1000 | nothing was gained |" in page


def test_tokens_and_flops_are_the_sums_of_the_records():
    rl = [{"prompt_tokens": 1, "response_tokens": 2, "generated_tokens": 3, "flops": 40}] * 2
    sft = [{"prompt_tokens": 5, "response_tokens": 6, "kept_tokens": 2, "flops": 7}]
    assert compute_of(rl, sft) == {
        "rl_tokens": 6, "generated_tokens": 6, "sft_tokens": 11, "loss_tokens": 2, "rl_flops": 80, "sft_flops": 7, "flops": 87,
    }  # fmt: skip
    assert compute_of([{"response_length": 3}], sft) == {}
