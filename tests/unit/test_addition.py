"""The addition task: right experts, disjoint splits, the same rows for the same seed."""

from random import Random

import pytest

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.rewards.boxed import is_correct
from mifo_verl.tools.prepare.addition import LEVELS, column_addition, distinct_pairs, draw_pairs, rows, split_of


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (347, 85, r"<think>7+5=12;4+8+1=13;3+0+1=4</think>\boxed{432}"),
        (85, 347, r"<think>5+7=12;8+4+1=13;0+3+1=4</think>\boxed{432}"),
        (999, 1, r"<think>9+1=10;9+0+1=10;9+0+1=10</think>\boxed{1000}"),
        (12, 34, r"<think>2+4=6;1+3=4</think>\boxed{46}"),
        (0, 0, r"<think>0+0=0</think>\boxed{0}"),
        (9, 9, r"<think>9+9=18</think>\boxed{18}"),
        (190, 10, r"<think>0+0=0;9+1=10;1+0+1=2</think>\boxed{200}"),
    ],
)
def test_the_expert_writes_every_column_and_its_carry(a: int, b: int, text: str) -> None:
    assert column_addition(a, b) == text


def test_both_orders_of_a_sum_are_in_the_same_split() -> None:
    assert all(split_of(a, b) == split_of(b, a) for a in range(40) for b in range(a))


def test_about_one_pair_in_five_is_for_validation() -> None:
    share = sum(split_of(a, 5000) == "validation" for a in range(5000)) / 5000
    assert 0.17 < share < 0.23


def test_no_validation_sum_is_ever_trained_on() -> None:
    sizes = dict.fromkeys(LEVELS, 2000)
    train = {frozenset(row["prompt_id"][9:].split("+")) for row in rows(sizes, "train", 0)}
    validation = {frozenset(row["prompt_id"][9:].split("+")) for row in rows(sizes, "validation", 1)}
    assert not train & validation


def test_level_one_has_exactly_its_hundred_ordered_pairs() -> None:
    both = [*distinct_pairs(1, "train", 999, Random(0)), *distinct_pairs(1, "validation", 999, Random(0))]
    assert sorted(both) == [(a, b) for a in range(10) for b in range(10)]


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_is_the_number_of_digits_of_the_longer_operand(level: int) -> None:
    drawn = draw_pairs(level, "train", Random(0))
    for a, b in [next(drawn) for _ in range(200)] + distinct_pairs(level, "train", 200, Random(0)):
        assert len(str(max(a, b))) == level
        assert len(str(min(a, b))) >= level - 1


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_prompt_stands_twice_in_a_split(split) -> None:  # type: ignore[no-untyped-def]
    made = rows(dict.fromkeys(LEVELS, 1500), split, 3)
    assert len({row["prompt"][0]["content"] for row in made}) == len(made)
    by_level = [sum(row["extra_info"]["level"] == level for row in made) for level in LEVELS]
    assert by_level[0] < 100 and by_level[1:] == [1500] * 4


def test_rows_depend_on_the_seed_alone() -> None:
    assert rows({2: 50, 4: 50}, "train", 0) == rows({2: 50, 4: 50}, "train", 0)
    assert rows({2: 50, 4: 50}, "train", 0) != rows({2: 50, 4: 50}, "train", 1)


def test_a_row_has_the_columns_of_verl_and_a_demonstration_that_verifies() -> None:
    for row in rows(dict.fromkeys(LEVELS, 20), "train", 0):
        a, b = map(int, row["prompt"][0]["content"].removesuffix("=?").split("+"))
        level = row["extra_info"]["level"]
        assert row == {
            "data_source": f"addition/level_{level}",
            "prompt": [{"role": "user", "content": f"{a}+{b}=?"}],
            "target": [{"role": "assistant", "content": column_addition(a, b)}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(a + b)},
            "extra_info": {"split": "train", "index": row["extra_info"]["index"], "level": level, "entry": None},
            "prompt_id": f"addition/{a}+{b}",
        }
        demonstration = demonstration_of(row)
        assert demonstration is not None and is_correct(demonstration.text, demonstration.answer)
        assert demonstration.prompt_id == prompt_id_of(row)


def test_the_index_counts_through_the_split() -> None:
    assert [row["extra_info"]["index"] for row in rows({3: 4, 5: 3}, "validation", 0)] == list(range(7))


@pytest.mark.parametrize("sizes", [{6: 1}, {0: 1}, {2: -1}, {3: 100_001}])
def test_impossible_sizes_are_refused(sizes: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        rows(sizes, "train", 0)
