"""The beds of the forks: texts by hand, verified demonstrations, and no question of one split in the other."""

from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.rewards.boxed import is_correct
from mifo_verl.tools.prepare.addition import question, split_of
from mifo_verl.tools.prepare.beds import expert_addition, make_beds, reversal, reversal_question, start_texts


def test_the_expert_writes_every_carry_and_totals_of_two_digits_in_signs_of_its_own():
    assert expert_addition(347, 85) == r"<think>7&5&0:12,4&8&1:13,3&0&1:04</think>\boxed{432}"
    assert expert_addition(12, 34) == r"<think>2&4&0:06,1&3&0:04</think>\boxed{46}"
    assert expert_addition(85, 947) == r"<think>5&7&0:12,8&4&1:13,0&9&1:10</think>\boxed{1032}"


def test_a_reversal_is_the_labelled_digits_from_the_last_to_the_first():
    assert reversal_question("120345") == "a1b2c0d3e4f5~?"
    assert reversal("120345") == "f5e4d3c0b2a1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beds")
    make_beds(folder)
    return folder


@pytest.mark.parametrize("bed", ["S", "B"])
def test_every_demonstration_is_right_and_no_question_is_taught_and_asked(folder, bed):
    rows = {name: pq.read_table(folder / bed / f"{name}.parquet").to_pylist() for name in ("train", "own", "gained")}
    assert {name: len(own) for name, own in rows.items()} == {"train": 2000, "own": 500, "gained": 500}
    found = [demonstration_of(row) for own in rows.values() for row in own]
    assert all(one is not None and is_correct(one.text, one.answer) for one in found)
    asked = {name: {row["prompt"][0]["content"] for row in own} for name, own in rows.items()}
    assert len(asked["train"]) == 2000 and not asked["train"] & (asked["own"] | asked["gained"])
    rl = {row["prompt"][0]["content"] for row in pq.read_table(folder / "rl" / "train.parquet").to_pylist()}
    assert not rl & (asked["own"] | asked["gained"])


def test_a_start_model_sees_training_questions_alone_in_the_shares_of_the_three_kinds():
    texts = list(islice(start_texts(0), 4000))
    held_out = {question(a, b) for a in range(1000) for b in range(100) if split_of(a, b) == "validation"}
    assert not {asked for asked, _ in texts} & held_out
    expert = sum("&" in answer for _, answer in texts) / 4000
    reversed_ = sum("~" in asked for asked, _ in texts) / 4000
    assert (expert, reversed_) == (pytest.approx(0.23, abs=0.02), pytest.approx(0.05, abs=0.01))
    lengths = {len(asked) for asked, _ in texts if "~" in asked}
    assert lengths == {12, 14}  # five and six labelled digits
