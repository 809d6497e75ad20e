"""A row gives its demonstration or None, and a prompt keeps its id however the row was read."""

import hashlib
from typing import Any

import numpy as np
import pytest

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.types import Demonstration

PROMPT = [{"role": "user", "content": "2+2=?"}]
TARGET = [{"role": "assistant", "content": "<think>\n4</think>\\boxed{4}"}]


def row(**changes: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "target": TARGET, "reward_model": {"style": "rule", "ground_truth": "4"}} | changes


def test_a_well_formed_row_gives_its_text_and_ground_truth() -> None:
    assert demonstration_of(row(prompt_id="q1")) == Demonstration("q1", "<think>\n4</think>\\boxed{4}", "4")


@pytest.mark.parametrize(
    "target",
    [
        None,
        [],
        "text",
        {},
        42,
        [None],
        ["text"],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": " \n"}],
        [{"role": "user", "content": "4"}],
        [TARGET[0], TARGET[0]],
        np.array([]),
    ],
)
def test_a_target_that_is_null_empty_or_malformed_is_no_demonstration(target: Any) -> None:
    assert demonstration_of(row(target=target)) is None


@pytest.mark.parametrize(
    "reward_model", [None, {}, {"ground_truth": None}, {"ground_truth": " "}, {"ground_truth": True}]
)
def test_without_a_ground_truth_there_is_no_demonstration(reward_model: Any) -> None:
    assert demonstration_of(row(reward_model=reward_model)) is None


def test_a_row_without_the_target_column_has_no_demonstration() -> None:
    assert demonstration_of({"prompt": PROMPT, "reward_model": {"ground_truth": "4"}}) is None


def test_an_integer_ground_truth_is_read_as_text() -> None:
    found = demonstration_of(row(reward_model={"ground_truth": 4}))
    assert found is not None and found.answer == "4"


def test_the_id_is_the_rows_own_where_it_has_one() -> None:
    assert prompt_id_of(row(prompt_id="mine")) == "mine"
    assert prompt_id_of(row(prompt_id=7)) == "7"


def test_the_id_is_a_hash_of_the_canonical_prompt_otherwise() -> None:
    canonical = '[{"content":"2+2=?","role":"user"}]'
    assert prompt_id_of(row()) == "p" + hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert prompt_id_of(row(prompt_id=None)) == prompt_id_of(row())


def test_the_way_a_row_was_read_does_not_change_its_id() -> None:
    reordered = [{"content": "2+2=?", "role": "user", "name": None}]
    assert prompt_id_of(row(prompt=reordered)) == prompt_id_of(row())
    assert prompt_id_of(row(prompt=np.array(PROMPT, dtype=object))) == prompt_id_of(row())


def test_different_prompts_have_different_ids() -> None:
    other = [{"role": "system", "content": "2+2=?"}]
    assert prompt_id_of(row(prompt=other)) != prompt_id_of(row())


def test_numpy_targets_are_read_like_lists() -> None:
    assert demonstration_of(row(target=np.array(TARGET, dtype=object))) == demonstration_of(row())


def test_who_wrote_a_demonstration_goes_with_it_to_the_example():
    row = {
        "prompt": [{"role": "user", "content": "1+1?"}],
        "target": [{"role": "assistant", "content": "2"}],
        "reward_model": {"ground_truth": "2"},
    }
    assert demonstration_of(row).source == "dataset"
    assert demonstration_of(row | {"target_source": None}).source == "dataset"
    assert demonstration_of(row | {"target_source": "teacher-32b"}).source == "teacher-32b"
