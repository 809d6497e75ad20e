"""The other rewards: exact match, multiple choice, reasoning-gym's scorers, and a user's own function."""

import json
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from mifo_verl.rewards import boxed, choice, custom, exact, gym, math, similarity
from mifo_verl.rewards.kinds import KINDS, scorer

LETTERS = [
    (r"so \boxed{B}", "B"),
    (r"so \boxed{(b)}", "B"),
    (r"so \boxed{\text{B}}", "B"),
    (r"so \boxed{\textbf{(B)}\ 42}", "B"),
    (r"so \boxed{\text{Answer: G}}", "G"),
    (r"so \boxed{A, C}", None),
    ("<answer>C</answer>", "C"),
    ("<answer> (c) </answer> and more", "C"),
    (r"so \boxed{B. 42}", "B"),
    (r"so \boxed{B) a cat}", "B"),
    (r"so \boxed{A cat}", None),
    (r"so \boxed{42}", None),
    (r"\boxed{A} no, \boxed{C}", "C"),
    ("The answer is (D).", "D"),
    ("The answer is: **D**", "D"),
    ("Answer: D", "D"),
    (r"the correct option is $\text{(D)}$", "D"),
    ("I would say the answer is A. No: the answer is E", "E"),
    ("answer: d", "D"),
    ("Answer - D", "D"),
    ("The answer is not A but D", "D"),
    ("The answer is not (A), but (D).", "D"),
    ("Answer: A/B/C", None),
    ("**Answer: D/H**", None),
    ("The answer is B or C", None),
    ("The answer is D, as B is too small", "D"),
    ("The answer is A man", None),
    ("The answer is A because it fits", "A"),
    ("The answer is A.", "A"),
    ("The answer is I think unclear", None),
    ("\\boxed{\\text{(G)}}", "G"),
    ("The answer is (b).", "B"),
    ("The correct answer is option C.", "C"),
    ("Answer: (C) 42", "C"),
    ("**Answer:** C", "C"),
    ("**C**", "C"),
    ("C.", "C"),
    ("Answer is C or D", None),
    ("The answer is A, B", None),
    ("answer is A and C", None),
    ("The answer is A big house", None),
    ("I think A is wrong so the answer must be B", "B"),
    ("The answer is definitely B", "B"),
    ('The answer is "B"', "B"),
    ("The best choice is D", "D"),
    ("Option B is correct", "B"),
    ("\\boxed{A/B}", None),
    ("\\boxed{A, B}", None),
    ("\\boxed{\\text{A or B}}", None),
    ("\\boxed{(A) 12}", "A"),
    ("\\boxed{\\text{A}}", "A"),
    ("\\boxed{\\mathrm{(D)}\\ x^2}", "D"),
    ("Final answer: d.", "D"),
    ("answer = C", "C"),
    ("Answer – C", "C"),
    ("It's not B, it's C. The answer: C", "C"),
    ("The answer isn't A", None),
    ("The answer is not A", None),
    ("The answer cannot be A", None),
    ("The answer is A", "A"),
    ("The answer is Apple", None),
    ("The answer is a number", None),
    ("Reasoning about A and B.\n(C)", "C"),
    ("Reasoning about A and B.\n**C**\n", "C"),
    ("Reasoning about A and B.", None),
    ("The answer is K", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_the_letter_chosen(text: str, letter: str | None) -> None:
    assert choice.chosen(text) == letter


def test_a_choice_is_right_where_the_letters_agree_after_the_reasoning() -> None:
    assert choice.compute_score("s", r"\boxed{A}</think>The answer is B", "(B)")["acc"] == 1
    assert choice.compute_score("s", r"\boxed{A}</think>The answer is B", "A")["acc"] == 0
    assert choice.compute_score("s", "The answer is B", "B", require_think=True)["acc"] == 0
    assert choice.compute_score("s", "nothing", "B")["acc"] == 0


def test_a_ground_truth_that_is_no_letter_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be a letter from A to J"):
        choice.verdict("The answer is B", "42")


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("<think>no</think> New  York\n", "New York", True),
        (r"<think>no</think>It is \boxed{ 007 }.", "7", True),
        ("New York City", "New York", False),
        ("new york", "New York", False),
        ("7", "7.0", False),
        ("", "", False),
    ],
)
def test_exact_compares_the_whole_answer_and_counts_spaces_as_one(text: str, answer: str, correct: bool) -> None:
    assert exact.verdict(text, answer).correct is correct


def test_exact_and_boxed_can_require_the_tag() -> None:
    for reward in (exact, boxed):
        assert reward.verdict(r"\boxed{7}", "7").correct
        assert not reward.verdict(r"\boxed{7}", "7", require_think=True).correct
        assert not reward.verdict(r"\boxed{7}</think>8", "7", require_think=True).correct


@pytest.mark.parametrize("reward", [boxed, math, exact, choice, gym])
def test_every_reward_has_the_signature_that_verl_calls(reward: ModuleType) -> None:
    custom.check_signature(reward.compute_score, {"require_think": True})
    assert list(signature(reward.compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so <answer> 12 </answer>", "12"),
        ("<answer>1</answer> no <answer>2</answer>", "2"),
        (r"so \boxed{3}", "3"),
        (r"<answer>4</answer> \boxed{3}", "4"),
        (" 5 ", "5"),
        ("<answer>6", "<answer>6"),
    ],
)
def test_the_answer_for_reasoning_gym_stands_in_its_tags(text: str, answer: str) -> None:
    assert gym.answer_of(text) == answer


def test_a_row_without_an_entry_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"extra_info.entry='' must be an entry of reasoning-gym"):
        gym.compute_score("s", "1", "1", {"entry": ""})


def test_reasoning_gym_scores_partly_and_is_correct_at_1_alone() -> None:
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    entry = reasoning_gym.create_dataset("chain_sum", size=3, seed=1)[2]
    row = {"entry": json.dumps(entry)}
    right = gym.compute_score("s", f"<think>x</think><answer>+{entry['answer']}.0</answer>", entry["answer"], row)
    assert (right["score"], right["acc"]) == (1.0, 1)
    wrong = gym.compute_score("s", "<answer>123456789</answer>", entry["answer"], row)
    assert wrong["acc"] == 0 and wrong["score"] < 1.0
    spaced = reasoning_gym.create_dataset("word_sorting", size=1, seed=1)[0]
    longer = gym.verdict(f"<answer>{spaced['answer']} and more</answer>", json.dumps(spaced))
    assert not longer.correct and longer.error is None


def write(path: Path, code: str) -> str:
    path.write_text(code)
    return str(path)


def test_an_own_function_is_found_by_path_and_scores(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.py",
        "def half(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return {'score': 0.5 + extra_info['bonus'], 'acc': int(solution_str == ground_truth)}\n"
        "async def late(data_source, solution_str, ground_truth, extra_info):\n"
        "    return solution_str == ground_truth\n",
    )
    verdict = scorer(f"{path}:half")("7", "7", {"extra_info": {"bonus": 0.25}})
    assert (verdict.score, verdict.correct) == (0.75, True)
    assert scorer(f"file://{path}:late")("7", "8", {}).correct is False
    assert scorer("pkg://mifo_verl.rewards.boxed:compute_score")(r"\boxed{7}", "7", {}).correct is True


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def compute_score(prompt, answer): ...",
            "must take data_source, solution_str, ground_truth, extra_info by name",
        ),
        ("def other(): ...", r"name=compute_score must be a function of .* it has other$"),
        ("def compute_scores(): ...", r"it has compute_scores \(did you mean compute_scores\?\)"),
        ("1/0", r"must be a module that loads \(ZeroDivisionError"),
        ("compute_score = 3", "must be a function"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_before_a_run(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        custom.load(write(tmp_path / "mine.py", code))
    with pytest.raises(ValueError, match=r"path=nowhere.py must be a module that loads \(FileNotFoundError"):
        custom.load("nowhere.py")


def test_reward_kwargs_are_part_of_the_signature() -> None:
    def strict(data_source: str, solution_str: str, ground_truth: str, extra_info: object) -> int:
        return 0

    custom.check_signature(strict, {})
    with pytest.raises(ValueError, match=r"reward_kwargs={'weight': 2} must be keywords of strict"):
        custom.check_signature(strict, {"weight": 2})


@pytest.mark.parametrize("result", [None, "1", {"score": 1.0}, {"acc": 1}, 0.5, float("nan"), {"score": 1, "acc": 0.5}])
def test_a_result_without_a_correctness_of_0_or_1_is_refused(result: object) -> None:
    with pytest.raises(ValueError, match="the reward function's result"):
        custom.verdict_of(result)


def test_an_unknown_kind_names_the_kinds() -> None:
    with pytest.raises(ValueError, match=r"^kind=maths must be one of auto, math, .* \(did you mean math\?\)"):
        scorer("maths")
    assert {"math", "boxed", "exact", "choice", "reasoning_gym", "similarity"} == set(KINDS)


@pytest.mark.parametrize(
    ("answer", "expert", "score"),
    [
        ("x = 4", "x = 3", 0.8),
        ("add 3 and 2", "add 2 and 3", 0.81818182),
        ("tide", "diet", 0.25),
        ("diet", "tide", 0.5),  # the model's answer is the first of the two
        ("ab" * 150, "ba" * 150, 0.99666667),  # 0 under difflib's junk heuristic
        (" x = 3 ", "x = 3\n", 1.0),
        ("", "x = 3", -1.0),
        (" \n", "", -1.0),
    ],
)
def test_a_step_is_rewarded_by_its_likeness_to_the_experts_and_correct_if_it_is_the_same(answer, expert, score):
    found = similarity.compute_score("srl", f"<think>hm</think>{answer}", expert, {}, require_think=True)
    assert found == {"score": pytest.approx(score, abs=1e-8), "acc": int(score == 1), "method": "letters"}


def test_a_step_without_the_tag_is_of_a_bad_format_where_thinking_is_asked_for():
    asked = similarity.compute_score("srl", "x = 3", "x = 3", require_think=True)
    assert asked == {"score": -1.0, "acc": 0, "method": "letters"}
    assert similarity.compute_score("srl", "x = 3", "x = 3") == {"score": 1.0, "acc": 1, "method": "letters"}


def test_two_long_texts_end_at_the_limit_with_a_score_of_0():
    found = similarity.verdict("ab" * 20_000, "ba" * 20_000, cpu_seconds=0.2)
    assert (found.score, found.correct) == (0.0, False) and found.error in ("cpu limit", "wall clock")


def test_a_row_of_srl_is_judged_by_similarity():
    assert scorer("auto")("<think></think>x = 4", "x = 3", {"data_source": "srl"}).score == pytest.approx(0.8)
