"""Answers are extracted and compared as the data's authors mean them, in any thread, whatever a model writes."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from types import ModuleType

import pytest

from mifo_verl.rewards import boxed, math
from mifo_verl.rewards.extract import after_think, answer_part, last_boxed, word_for_none


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("a</think>", ""),
        ("no tag", None),
        ("<think> never closed", None),
        ("", None),
    ],
)
def test_the_answer_follows_the_last_closing_tag(text: str, answer: str | None) -> None:
    assert after_think(text) == answer


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{ 4 }", "4"),
        (r"\boxed{}", ""),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \} y}", r"x \} y"),
        (r"\boxed{5} but \boxed{6", "5"),
        (r"\boxed{5 \boxed{6} and {7", "6"),
        (r"so\\boxed{9}", "9"),
        (r"} \boxed{1} }} {", "1"),
        (r"\boxed {1}", "1"),
        (r"$\boxed7$", "7"),
        (r"\bbox[5px]{7}", "7"),
        (r"\colorbox{yellow}{7}", "7"),
        (r"\boxed{7", None),
        (r"boxed{8}", None),
        ("", None),
    ],
)
def test_the_last_box_whose_braces_balance_counts(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("007", "7"),
        ("0", "0"),
        ("000", "0"),
        ("-0", "0"),
        ("+5", "5"),
        ("-012", "-12"),
        ("1,234", "1234"),
        (" 8 ", "8"),
        ("1,23", "1,23"),
        ("0.50", "0.50"),
        ("x", "x"),
        ("٣", "٣"),
    ],
)
def test_only_integers_are_normalised(written: str, same: str) -> None:
    assert boxed.normalise(written) == same


@pytest.mark.parametrize(
    ("response", "acc"),
    [
        (r"<think>7+5=12</think>\boxed{432}", 1),
        (r"\boxed{0432}", 1),
        (r"\boxed{432} no, \boxed{433}", 0),
        ("432", 0),
        ("", 0),
    ],
)
def test_boxed_score_and_correctness_come_apart(response: str, acc: int) -> None:
    assert boxed.compute_score("addition/level_3", response, "432") == {
        "score": float(acc),
        "acc": acc,
        "method": "letters",
    }


@pytest.mark.parametrize("reward", [boxed, math])
def test_verl_can_call_it_with_the_arguments_of_its_reward_manager(reward: ModuleType) -> None:
    result = reward.compute_score(
        data_source="s", solution_str=r"</think>\boxed{7}", ground_truth="7", extra_info={"num_turns": 2}, anything=1
    )
    assert result == {"score": 1.0, "acc": 1, "method": "letters"}
    assert list(signature(reward.compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]


@pytest.mark.parametrize(
    ("response", "gold", "correct"),
    [
        (r"</think>\boxed{0.5}", r"\frac{1}{2}", True),
        (r"</think>The answer is $\frac{2}{4}$.", r"\frac{1}{2}", True),
        (r"</think>\boxed{(3, \pi/2)}", r"\left( 3, \frac{\pi}{2} \right)", True),
        (r"</think>\boxed{204}", r"\boxed{204}", True),
        (r"</think>\boxed{2}", "3", False),
        (r"\boxed{3}</think>I do not know", "3", False),
        (r"\boxed{3}</think>", "3", False),
        (r"\boxed{3}", "3", True),
        (r"</think>\boxed{\frac{", "3", False),
        ("26 for the 1-point and 5-point questions\n#### 1,026\n", "1026", True),
        ("26 for the 1-point and 5-point questions\n#### 1,026\nor not", "26", False),
        (r"\boxed{2}" + "\n#### 3", "3", False),
        ("#### ", "3", False),
        ("so it is 3", "1+2=3\n#### 3", True),
        ("so it is 3", r"so $x=\boxed{4}$", False),
        ("", "3", False),
        ("", "", False),
    ],
)
def test_math_compares_what_follows_the_reasoning_by_value(response: str, gold: str, correct: bool) -> None:
    assert math.is_correct(response, gold) is correct


def test_a_missing_tag_is_wrong_where_the_tag_is_required() -> None:
    assert math.compute_score("s", r"\boxed{3}", "3", require_think=True)["acc"] == 0
    assert math.compute_score("s", r"</think>\boxed{3}", "3", require_think=True)["acc"] == 1


def test_math_works_in_threads_where_signals_do_not() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert (
            list(pool.map(lambda n: math.is_correct(f"so $x={n}/2$", rf"\frac{{{n}}}{{2}}"), range(1, 9))) == [True] * 8
        )


def test_an_answer_too_big_to_evaluate_is_wrong_in_time_and_the_next_one_is_read() -> None:
    math.is_correct("1", "2")  # the checkers run
    start = time.monotonic()
    verdict = math.verdict(r"\boxed{9^{9^{9^{9}}}}", "5", cpu_seconds=0.2)
    assert not verdict.correct and verdict.error == "cpu limit"
    assert time.monotonic() - start < 5.0
    assert math.is_correct(r"\boxed{10/2}", "5")


@pytest.mark.parametrize("text", ["so $ {} $.", r"so \({}\)", r"\[1\] so \[{}\]", "so $$\n{}\n$$"])
def test_what_takes_too_long_to_read_is_right_where_it_is_the_answer_letter_by_letter(text: str) -> None:
    tower = "9^{9^{9^{9}}}"
    verdict = math.verdict(text.replace("{}", tower), tower, cpu_seconds=0.1)
    assert (verdict.correct, verdict.error, verdict.extracted) == (True, None, tower)
    verdict = math.verdict(text.replace("{}", tower) + " No, $8$", tower, cpu_seconds=0.1)
    assert not verdict.correct


def test_a_long_response_is_read_to_its_end_and_only_the_far_past_is_left_out() -> None:
    assert math.is_correct("x = 1. " * 20_000 + r"\boxed{4/2}", "2")
    assert math.is_correct(r"\boxed{4/2}" + " and so on" * 1000, "2")
    assert not math.is_correct(r"\boxed{4/2}" + " and so on" * 6000, "2")


def test_a_long_response_is_cut_at_a_line_so_that_no_formula_is_split() -> None:
    text = "a" * 10_000 + "\n" + "b $x$\n" * 8_000
    assert answer_part(text) == "b $x$\n" * 8_000
    cut = answer_part("a" * 1000 + "\n" + "b $x$\n" * 9_000)
    assert len(cut) == 49_998 and cut.startswith("b $x$\n")


def test_math_verify_stays_out_of_the_callers_process() -> None:
    code = "import sys; from mifo_verl.rewards import math; assert math.is_correct('1/2', '0.5'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mifo_verl.rewards.math" in modules and not {"math_verify", "sympy"} & set(modules)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (r"\{\}", None),
        (r"$\{ \}$.", None),
        ("[]", None),
        ("()", None),
        ("7", None),
        ("", ""),
        ("{}", ""),
        ("$$", ""),
        (r"\[\]", ""),
        ("(proof)", "proof"),
        (r"\text{N/A}", "n/a"),
    ],
)
def test_empty_brackets_are_an_answer_and_a_word_for_none_is_not(answer: str, word: str | None) -> None:
    assert word_for_none(answer) == word
