"""Which training prompts count as solved: the newest rollouts decide, the most recent stay."""

from mifo_verl.method.solved import SolvedPrompts
from mifo_verl.types import PromptGroup


def group(prompt_id: str, num_correct: int, num_rollouts: int = 8) -> PromptGroup:
    return PromptGroup(prompt_id, num_correct, num_rollouts, step=1)


def test_only_the_newest_distinct_prompts_that_are_solved_stay_the_oldest_first():
    solved = SolvedPrompts(size=2)
    solved.see([group("a", 8), group("b", 7), group("c", 8), group("a", 8)])
    assert solved.ids == ["c", "a"]
    solved.see([group("d", 8)])
    assert solved.ids == ["a", "d"]
    solved.see([group("a", 3)])
    assert solved.ids == ["d"]


def test_the_share_is_exact():
    solved = SolvedPrompts(size=9, min_accuracy="3/8")
    solved.see([group("a", 3), group("b", 2), group("c", 0, 0)])
    assert solved.ids == ["a"]
    tenth = SolvedPrompts(size=9, min_accuracy=0.1)
    tenth.see([group("a", 1, 10)])
    assert tenth.ids == ["a"]


def test_a_size_of_0_keeps_none():
    solved = SolvedPrompts(size=0)
    solved.see([group("a", 8)])
    assert solved.ids == []
