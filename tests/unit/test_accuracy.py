"""acc(q) as integer counts: method.md part 1 step 2, traps 4, 5 and 9."""

import math

import numpy as np
import pytest

from mifo_verl.method.accuracy import count_correct


def test_counts_correct_and_all_rollouts_of_each_prompt():
    rollouts = [("a", 1, False), ("b", 0, False), ("a", 0, False), ("b", 0, False), ("a", 1, False)]
    assert count_correct(rollouts) == {"a": (2, 3), "b": (0, 2)}


def test_prompts_come_in_the_order_in_which_they_first_appear():
    assert list(count_correct([("z", 0, False), ("a", 0, False), ("m", 1, False), ("a", 1, False)])) == ["z", "a", "m"]


def test_the_order_of_the_rollouts_does_not_change_the_counts():
    rollouts = [("a", i % 3 == 0, i % 5 == 0) for i in range(17)] + [("b", i % 2, False) for i in range(9)]
    assert count_correct(rollouts) == count_correct(rollouts[::-1])


def test_padding_rollouts_count_neither_as_correct_nor_as_rollouts():
    """Trap 5: 1 of 8 would become 2 of 10."""
    real = [("a", i == 0, False) for i in range(8)]
    padding = [("a", 1, True), ("a", 0, True)]
    assert count_correct(real + padding) == {"a": (1, 8)}


def test_a_prompt_of_padding_alone_does_not_appear():
    assert count_correct([("a", 1, True)]) == {}


def test_correctness_of_a_padding_row_is_not_looked_at():
    assert count_correct([("a", math.nan, True), ("a", 1, False)]) == {"a": (1, 1)}


def test_no_rollouts_give_no_prompts():
    assert count_correct([]) == {}


@pytest.mark.parametrize(
    "one", [1, 1.0, True, np.int64(1), np.float32(1), np.float64(1), np.bool_(True)], ids=lambda v: type(v).__name__
)
def test_correctness_may_be_a_python_or_numpy_number_or_bool(one):
    counts = count_correct([("a", one, False), ("a", type(one)(0), False)])
    assert counts == {"a": (1, 2)}
    assert type(counts["a"][0]) is int


@pytest.mark.parametrize("value", [0.5, -1, 2, 1.1, 0.999, math.nan, "1", None])
def test_a_correctness_that_is_neither_0_nor_1_is_refused(value):
    """Trap 9: a shaped reward is no correctness."""
    with pytest.raises(ValueError) as error:
        count_correct([("q7", value, False)])
    assert str(error.value) == (
        f"acc={value} of prompt q7 must be 0 or 1; the reward function has to return {{'score': float, 'acc': 0 or 1}}"
    )
