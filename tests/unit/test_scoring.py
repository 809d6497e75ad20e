"""The reward by name, by data source, or by path; the same verdicts as training."""

import pytest

from mifo_verl.rewards import boxed, math
from mifo_verl.scoring import Scorer, Verdict, reward_of

RESPONSES = [r"\boxed{7}", r"<think>x</think>\boxed{\frac{14}{2}}", "7", r"\boxed{8}", ""]


@pytest.mark.parametrize("text", RESPONSES)
@pytest.mark.parametrize(("source", "reward"), [("addition/level_3", boxed), ("gsm8k", math), ("anything", math)])
def test_the_verdict_is_what_the_reward_of_that_source_returns_in_training(text, source, reward):
    trained = reward.compute_score(source, text, "7")
    assert Scorer()(source, text, "7") == Verdict(trained["score"], bool(trained["acc"]))


def test_a_data_source_has_the_reward_of_its_task():
    assert reward_of("addition/level_1") == "boxed"
    assert reward_of("openai/gsm8k") == "math"


def test_a_named_reward_goes_for_every_source():
    assert not Scorer("boxed")("gsm8k", r"\boxed{14/2}", "7").correct
    assert Scorer("math")("addition/level_1", r"\boxed{14/2}", "7").correct


def test_require_think_makes_an_answer_without_the_tag_wrong():
    assert not Scorer(require_think=True)("openr1", r"\boxed{7}", "7").correct
    assert Scorer(require_think=True)("openr1", r"</think>\boxed{7}", "7").correct
    assert Scorer(require_think=True)("addition/level_1", r"\boxed{7}", "7").correct  # boxed knows no tags


def test_a_function_of_ones_own_is_loaded_by_path_and_gets_verls_arguments(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def judge(data_source, solution_str, ground_truth, extra_info=None, **_):\n"
        "    right = [data_source, solution_str, ground_truth, extra_info] == ['s', 'r', 'a', {'index': 3}]\n"
        "    return {'score': 0.5, 'acc': int(right)}\n"
        "def plain(**_):\n    return 1.0\n"
        "def vague(**_):\n    return {'score': 0.3}\n"
    )
    assert Scorer(f"{path}:judge")("s", "r", "a", {"index": 3}) == Verdict(0.5, True)
    assert Scorer(f"{path}:judge")("s", "r", "b", {"index": 3}) == Verdict(0.5, False)
    assert Scorer(f"{path}:plain")("s", "r", "a") == Verdict(1.0, True)
    with pytest.raises(ValueError, match="acc=None and must return acc as 0 or 1"):
        Scorer(f"{path}:vague")("s", "r", "a")
    with pytest.raises(ValueError, match="nothing is none"):
        Scorer(f"{path}:nothing")


@pytest.mark.parametrize("reward", ["maths", "missing.py:f", "mine.py"])
def test_an_unknown_reward_is_an_error_when_it_is_chosen(reward):
    with pytest.raises(ValueError, match=f"^reward={reward} must be one of auto, math, boxed"):
        Scorer(reward)


def test_require_think_is_refused_where_it_would_be_ignored():
    with pytest.raises(ValueError, match="require_think=true must go with reward=math"):
        Scorer("boxed", require_think=True)
