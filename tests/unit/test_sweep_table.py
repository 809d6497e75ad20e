"""What a sweep's table and page say of arms compared, and what may be claimed."""

import math
from dataclasses import replace

import pytest

from mifo_verl.tools.sweep.definition import Question, against, planned_tests
from mifo_verl.tools.sweep.page import Origin, print_table, to_csv, to_markdown
from mifo_verl.tools.sweep.table import make_table, traded

ORIGIN = Origin("Title", "mifo sweep x", ["a-seed0"], [], "arms a", "", {"0123": ["a-seed0"]})
"""What `finish` knows beside the numbers."""


def page(table, **more) -> str:
    return to_markdown(table, replace(ORIGIN, **more))


def table_of(arms, baseline=None, questions=(), numbers=("accuracy",), planned=()):
    """The table of arms that are compared with a baseline, then of what else was asked."""
    first = [against(baseline, list(planned or arms), list(numbers))] if baseline else []
    return make_table(arms, [*first, *questions])


def compared(arms, *pairs):
    """The differences of the pairs in accuracy, which is all that is asked."""
    (answer,) = make_table(arms, [Question("", list(pairs))]).questions
    return [one for one in answer.differences if one.number == "accuracy"]


FLOPS = {0: 1e9, 1: 1e9, 2: 1e9}
ARMS = {
    "mifo": {"accuracy": {0: 0.50, 1: 0.52, 2: 0.54}, "flops": FLOPS},
    "rl": {"accuracy": {0: 0.40, 1: 0.43, 2: 0.43}, "flops": {seed: 1.05e9 for seed in FLOPS}},
    "noisy": {"accuracy": {0: 0.10, 1: 0.90, 2: 0.40}, "flops": {0: 1e9, 1: 0.9e9, 2: 1.1e9}},
}


def test_a_claim_says_what_it_rests_on():
    one, two = (found.claim for found in compared(ARMS, ("mifo", "rl"), ("noisy", "rl")))
    # differences 10, 9, 11 points; half = 4.3027 / sqrt(3) = 2.48; at 97.5 % it is 6.2053 / sqrt(3) = 3.58
    assert one == (
        "mifo - rl: +10 points [+7.52, +12.5], 3 seeds: higher. A difference below 3.58 points could not have been "
        "claimed."
    )
    # differences -30, 47, -3: mean 4.67, deviation 39.1; half = 4.3027 * 39.1 / sqrt(3) = 97.0; 6.2053 * ... = 140
    assert two.endswith(
        "no claim; the interval allows up to 1e+02 points in size. A difference below 140 points could not have been "
        "claimed."
    )


def test_what_it_cost_has_seconds_peak_memory_and_tokens_of_each_arm():
    costs = {"seconds": 61.25, "peak_memory_gb": 0.61234, "generated_tokens": 1000.0, "sft_tokens": 20.0}
    told = page(make_table({"a": {"accuracy": {0: 0.5}} | {name: {0: cost} for name, cost in costs.items()}}, []))
    assert "| arm | seeds | generated tokens | sft tokens | seconds | peak memory gb |" in told
    assert "| a | 1 | 1,000.0 | 20.0 | 61.2 | 0.6123 |" in told


def test_arms_are_paired_by_seed_and_not_by_the_rank_or_the_order_of_their_seeds():
    # a has lost seed 0 and b seed 3; the common seeds 1 and 2 were kept in another order
    arms = {"a": {"accuracy": {2: 0.40, 1: 0.90, 3: 0.50}}, "b": {"accuracy": {0: 0.10, 1: 0.80, 2: 0.20}}}
    (one,) = compared(arms, ("a", "b"))
    # by seed: 0.90 - 0.80 and 0.40 - 0.20: 15 points, half = 12.706 * 0.0707 / sqrt(2); by rank it would be 23.3 points
    assert one.paired.mean == pytest.approx(0.15) and one.paired.num_values == 2
    assert one.paired.half_width == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert "+15 points" in one.claim and "2 seeds: no claim" in one.claim


@pytest.mark.parametrize(
    ("flops", "said"),
    [
        ({0: 0.8e9, 1: 1e9, 2: 0.9e9}, "3 seeds: higher at 1.11 times the compute."),  # 1e9 / 0.9e9
        ({0: 2e9, 1: 2e9, 2: 2e9}, "3 seeds: higher at 0.5 times the compute."),
        ({0: 1.09e9, 1: 1.09e9, 2: 1.09e9, 3: 5e9}, "3 seeds: higher."),  # seed 3 is in no pair
        ({0: 1e9, 1: 1e9}, "3 seeds: higher at a compute that the records do not tell."),
        ({}, "3 seeds: higher at a compute that the records do not tell."),
    ],
)
def test_a_claim_at_unequal_compute_says_so(flops, said):
    arms = ARMS | {"rl": {"accuracy": ARMS["rl"]["accuracy"]} | ({"flops": flops} if flops else {})}
    assert said in compared(arms, ("mifo", "rl"))[0].claim


def test_what_cannot_be_claimed_says_at_which_compute_too():
    arms = ARMS | {"rl": {"accuracy": ARMS["rl"]["accuracy"], "flops": {seed: 4e9 for seed in FLOPS}}}
    assert "no claim at 0.25 times the compute; the" in compared(arms, ("noisy", "rl"))[0].claim


NARROW = {"a": {"accuracy": {0: 0.05, 1: 0.06, 2: 0.09}, "flops": FLOPS}}
NARROW |= {"b": {"accuracy": dict.fromkeys(range(3), 0.0), "flops": FLOPS}}
NARROW |= {"c": {"accuracy": {0: 0.0, 1: 0.001, 2: -0.001}}}
"""a - b: 5, 6, 9 points; half of the interval is 5.17, and 7.46 for one of two tests."""


def test_what_holds_only_read_alone_is_said_to():
    first, _ = compared(NARROW, ("a", "b"), ("c", "b"))
    assert first.paired.excludes_zero() and not first.corrected.excludes_zero()
    assert first.claim.endswith(
        "higher, read alone; among all 2 tests no claim (Bonferroni). A difference below 7.46 points could not have been "
        "claimed."
    )


def test_the_same_difference_for_every_seed_is_no_claim():
    arms = {"a": {"accuracy": {0: 0.30, 1: 0.60, 2: 0.80}}, "b": {"accuracy": {0: 0.25, 1: 0.55, 2: 0.75}}}
    assert "no interval can be made of: no claim" in compared(arms, ("a", "b"))[0].claim


def test_the_table_compares_every_arm_with_the_baseline_and_answers_the_questions():
    table = table_of(ARMS, "rl", [Question("Why?", [("mifo", "noisy"), ("mifo", "gone")])])
    baseline, why = table.questions
    told = [(one.first, one.second, one.number) for one in baseline.differences]
    assert told == [(arm, "rl", number) for number in ("accuracy", "flops") for arm in ("mifo", "noisy")]
    answers = [(one.first, one.second, one.number) for one in why.differences]
    assert answers == [("mifo", "noisy", "accuracy"), ("mifo", "noisy", "flops")]
    assert why.missing == [("mifo", "gone")]
    assert "mifo - gone: no runs to compare yet." in page(table)
    assert table_of(ARMS).questions == []


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


def test_every_pair_and_number_of_the_plan_counts_once_whichever_way_round_and_whatever_is_finished():
    one, two = (
        Question("One?", [("b", "a"), ("a", "b")], [SOLVED]),
        Question("Two?", [("a", "c"), ("b", "a")], [SOLVED]),
    )
    assert len(planned_tests([one, two, Question("Late?", [("c", "b")], late=True)])) == 2
    table = table_of(PROBED, "b", [one, two])
    assert table.num_tests == 4 and {one.num_tests for one in table.differences} == {4}  # accuracy: a - b, c - b
    assert table_of({"a": PROBED["a"]}, "b", [one, two], planned=["a", "b", "c"]).num_tests == 4


def test_two_numbers_of_one_pair_are_two_tests():
    assert len(planned_tests([Question("?", [("a", "b")], ["accuracy", SOLVED])])) == 2


def test_one_page_says_one_thing_of_a_pair_and_a_number():
    first, second = table_of(NARROW, "b", [Question("Alone?", [("a", "b")])]).questions
    assert first.differences[0].claim == second.differences[0].claim
    assert "no claim (Bonferroni)" in first.differences[0].claim


def test_only_numbers_named_before_the_runs_are_claimed_and_every_other_is_exploratory_once():
    table = table_of(PROBED, "b", [Question("Cost?", [("a", "b")], [SOLVED])])
    baseline, question = table.questions
    assert [(one.number, one.is_primary) for one in question.differences] == [(SOLVED, True), ("gain", False)]
    assert "3 seeds: higher at a compute" in question.differences[0].claim
    assert question.differences[1].claim.endswith("exploratory, no claim.")  # 10, 10 and 9 points
    against_b = [(one.first, one.number) for one in baseline.differences if not one.is_primary]
    assert ("a", SOLVED) not in against_b and ("c", SOLVED) in against_b
    text = page(table)
    assert "Answered by: SFT: solved_accuracy." in text and "m = 3 is the number of tests of the plan" in text
    assert "| c - b | SFT: solved_accuracy | +0.0100 |" in text  # 0, 4 and -1 points
    assert "exploratory: 1 other differences, of which 0 have an interval without 0, where 0.1 would" in text


def test_the_gain_and_what_does_not_scatter_are_not_counted_as_exploratory():
    arms = {arm: {"accuracy": {0: 0.4, 1: 0.5}, "gain": {0: 0.1, 1: value}} for arm, value in (("a", 0.9), ("b", 0.2))}
    arms["a"]["sft/accuracy"], arms["b"]["sft/accuracy"] = {0: 0.30, 1: 0.60}, {0: 0.25, 1: 0.55}
    text = page(table_of(arms, "b"))
    assert "xploratory:" not in text and "Exploratory differences" not in text


def test_what_is_asked_after_the_runs_is_shown_and_never_claimed():
    table = table_of(NARROW, questions=[Question("Late?", [("a", "b")], late=True)])
    (one,) = (one for one in table.differences if one.number == "accuracy")
    assert not one.is_primary and one.claim.endswith("exploratory, no claim.") and table.num_tests == 0
    text = page(table)
    assert "## Late?\n\nAsked after the runs had started: exploratory, no claims." in text
    assert "| a - b | accuracy | +0.0667 |" in text and "higher." not in text


def test_the_page_says_which_runs_are_missing_added_and_of_other_code(capsys):
    table = table_of(ARMS, "rl")
    more = {"missing": ["rl-seed3", "rl-seed4"], "planned": "arms rl; seeds 0", "added": "seeds 3, 4"}
    text = page(table, **more)
    assert "Not finished: rl-seed3, rl-seed4." in text
    assert "Planned first: arms rl; seeds 0. Added after runs had started: seeds 3, 4." in text
    assert "Code (digest of the package's sources): `0123`." in text
    text = page(table, code={"0123": ["a"], "4567": ["b", "c"]})
    assert (
        "**Not all runs were made by the same code** (digest of the package's sources): `0123`: a; `4567`: b, c."
        in text
    )
    assert "Not finished" not in text and "Added" not in text
    print_table(table, replace(ORIGIN, **more))
    assert "Not finished: rl-seed3, rl-seed4." in capsys.readouterr().out


def test_a_cell_of_fewer_seeds_than_its_arm_says_so():
    arms = {"a": {"accuracy": {0: 0.5, 1: 0.5, 2: 0.5}, "sft/accuracy": {0: 0.5, 1: 0.5}, "flops": {2: 1e9}}}
    lines = page(table_of(arms))
    assert "| a | 3 | 0.5000 ± 0.0000 |" in lines and "| a | 3 | +0.5000 ± 0.0000 (n=2) |" in lines
    assert "| a | 3 | 1e+09 (n=1) |" in lines


def test_csv_and_markdown_have_every_number_of_the_table():
    table = table_of(ARMS, "rl", [Question("Why?", [("mifo", "noisy")])])
    lines = to_csv(table).splitlines()
    assert lines[0] == "arm,number,num_seeds,mean,low,high,by_seed" and len(lines) == 1 + 6
    assert (
        lines[2] == "mifo,flops,3,1000000000.0,1000000000.0,1000000000.0,0:1000000000.0 1:1000000000.0 2:1000000000.0"
    )
    text = page(table)
    assert "| mifo | 3 | 0.5200 ± 0.0497 |" in text and "## Why?" in text and "## Against rl" in text


def test_what_sft_lost_for_what_it_gained_is_paired_by_seed_and_has_its_interval():
    solved, hard = {0: -1.0, 1: -2.0, 2: -3.0, 7: 9.0}, {0: 4.0, 1: 4.0, 2: 4.0, 8: 9.0}
    asked = {"solved_asked": {0: 10.0, 1: 20.0}, "hard_asked": {0: 5.0}}
    found = traded({"sft/solved_accuracy": solved, "sft/hard_accuracy": hard} | asked)
    half = 4.302653 / math.sqrt(3)
    assert (found["lost"], found["gained"], found["ratio"], found["num_seeds"]) == (2.0, 4.0, 0.5, 3)
    assert (found["low"], found["high"]) == (pytest.approx((2 - half) / 4), pytest.approx((2 + half) / 4))
    assert found["asked"] == [15.0, 5.0]
    assert traded({"sft/solved_accuracy": {0: 1.0}, "sft/hard_accuracy": {1: 1.0}}) == {}
    lower = {"sft/solved_accuracy": solved, "sft/hard_accuracy": {seed: -4.0 for seed in hard}} | asked
    assert {traded(lower)[name] for name in ("ratio", "low", "high")} == {None}  # nothing was gained


def test_the_page_tells_what_was_lost_as_positive_and_where_a_ratio_says_nothing():
    def arm(solved, hard):
        numbers = {"sft/solved_accuracy": solved, "sft/hard_accuracy": hard}
        return numbers | {"solved_asked": dict.fromkeys(solved, 9.0), "hard_asked": dict.fromkeys(hard, 8.0)}

    arms = {
        "a": arm({0: -0.1, 1: 0.0}, {0: 0.1, 1: 0.3}),
        "b": arm({0: -0.1}, {0: -0.1}),
        "c": arm({0: -0.1}, {0: 0.2}),
    }
    arms |= {"d": arm({0: -1.0, 1: -2.0, 2: -3.0}, {0: 4.0, 1: 4.0, 2: 4.0})}
    text = page(table_of(arms))
    assert "| a | 2 | 9.0 | 8.0 | +0.0500 | +0.2000 | +0.25 | unbounded |" in text  # 0.05 lost for 0.2 gained
    assert "| b | 1 | 9.0 | 8.0 | +0.1000 | -0.1000 | nothing was gained | – |" in text
    assert "| c | 1 | 9.0 | 8.0 | +0.1000 | +0.2000 | +0.50 | – |" in text
    assert "| d | 3 | 9.0 | 8.0 | +2.0000 | +4.0000 | +0.50 | [-0.12, +1.12] |" in text


def test_the_page_begins_with_how_many_of_the_planned_tests_say_something():
    # mifo - rl: 10 points, half 2.48, and 4.42 of 3 tests; noisy scatters by 39; rl - mifo is mifo - rl
    questions = [Question("Again?", [("rl", "mifo")]), Question("Noise?", [("mifo", "noisy")])]
    told = page(table_of(ARMS, "rl", questions))
    assert "**Of 3 planned tests 1 can be claimed, and 0 more read alone.**" in told
    # near - rl: -4, -6 and -5 points, half 2.48, and 14.1 of 30 tests, of which one has runs
    arms = {"near": {"accuracy": {0: 0.36, 1: 0.37, 2: 0.38}}, "rl": ARMS["rl"]}
    many = [Question("", [("near", "rl")], [f"accuracy/{number}" for number in range(29)])]
    told = page(table_of(arms, "rl", many))
    assert "**Of 30 planned tests 0 can be claimed, and 1 more read alone.** 29 of them have no runs yet." in told
    assert "planned tests" not in page(table_of(ARMS))
