"""The reward by name, by data source, or by path; the same verdicts as training."""

import pytest

from mifo_verl.rewards import boxed, math
from mifo_verl.rewards.kinds import kind_of, scorer
from mifo_verl.rewards.verdict import Verdict


def judged(verdict: Verdict) -> tuple[float, bool]:
    return verdict.score, verdict.correct


RESPONSES = [r"\boxed{7}", r"<think>x</think>\boxed{\frac{14}{2}}", "7", r"\boxed{8}", ""]


@pytest.mark.parametrize("text", RESPONSES)
@pytest.mark.parametrize(("source", "reward"), [("addition/level_3", boxed), ("gsm8k", math), ("anything", math)])
def test_the_verdict_is_what_the_reward_of_that_source_returns_in_training(text, source, reward):
    trained = reward.compute_score(source, text, "7")
    assert judged(scorer("auto")(text, "7", {"data_source": source})) == (trained["score"], bool(trained["acc"]))


def test_a_data_source_has_the_reward_of_its_task():
    assert kind_of("addition/level_1") == "boxed"
    assert kind_of("openai/gsm8k") == "math"
    assert kind_of("reasoning_gym/gsm_symbolic") == "reasoning_gym"
    assert [kind_of(name) for name in ("mmlu_pro", "gpqa", "arc_c")] == ["choice"] * 3


def test_multiple_choice_is_judged_by_the_letter():
    assert scorer("auto")("The answer is (B).", "B", {"data_source": "gpqa"}).correct
    assert not scorer("auto")("A or C? The answer is C", "B", {"data_source": "gpqa"}).correct


def test_a_named_reward_goes_for_every_source():
    assert not scorer("boxed")(r"\boxed{14/2}", "7", {"data_source": "gsm8k"}).correct
    assert scorer("math")(r"\boxed{14/2}", "7", {"data_source": "addition/level_1"}).correct


def test_require_think_makes_an_answer_without_the_tag_wrong():
    assert not scorer("auto", require_think=True)(r"\boxed{7}", "7", {"data_source": "openr1"}).correct
    assert scorer("auto", require_think=True)(r"</think>\boxed{7}", "7", {"data_source": "openr1"}).correct
    assert not scorer("auto", require_think=True)(r"\boxed{7}", "7", {"data_source": "addition/level_1"}).correct


def test_a_function_of_ones_own_is_loaded_by_path_and_gets_verls_arguments(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def judge(data_source, solution_str, ground_truth, extra_info=None, **_):\n"
        "    right = [data_source, solution_str, ground_truth, extra_info] == ['s', 'r', 'a', {'index': 3}]\n"
        "    return {'score': 0.5, 'acc': int(right)}\n"
        "def plain(**_):\n    return 1.0\n"
        "def vague(**_):\n    return {'score': 0.3}\n"
    )
    row = {"data_source": "s", "extra_info": {"index": 3}}
    assert judged(scorer(f"{path}:judge")("r", "a", row)) == (0.5, True)
    assert judged(scorer(f"{path}:judge")("r", "b", row)) == (0.5, False)
    assert judged(scorer(f"{path}:plain")("r", "a", {})) == (1.0, True)
    with pytest.raises(ValueError, match="an acc beside it"):
        scorer(f"{path}:vague")("r", "a", {})
    with pytest.raises(ValueError, match="nothing must be a function of"):
        scorer(f"{path}:nothing")


@pytest.mark.parametrize("reward", ["maths", "mine.py"])
def test_an_unknown_reward_is_an_error_when_it_is_chosen(reward):
    with pytest.raises(ValueError, match=f"^reward={reward} must be one of auto, math, boxed"):
        scorer(reward, setting="reward")


def test_a_missing_file_is_an_error_when_it_is_chosen():
    with pytest.raises(ValueError, match=r"missing.py must be a module that loads"):
        scorer("missing.py:f")


def test_require_think_is_refused_where_it_would_be_ignored(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def judge(**_):\n    return 1.0\n")
    with pytest.raises(ValueError, match="require_think=true must go with a reward of mifo_verl"):
        scorer(f"{path}:judge", require_think=True)
