"""The shared nouns, and shares as exact rationals."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from mifo_verl.errors import exact_share, require
from mifo_verl.types import Phase, Progress, PromptGroup


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (0.1, Fraction(1, 10)),
        (0.125, Fraction(1, 8)),
        ("1/8", Fraction(1, 8)),
        ("0.2", Fraction(1, 5)),
        (1e-3, Fraction(1, 1000)),
        ("1e-3", Fraction(1, 1000)),
        (0, Fraction(0)),
        (1, Fraction(1)),
        (0.0, Fraction(0)),
        ("1/3", Fraction(1, 3)),
        (" 1/4 ", Fraction(1, 4)),
    ],
)
def test_a_share_is_the_exact_number_that_was_typed(value, share):
    assert exact_share("p", value) == share


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, "8/7", "-1/8", "1/0", "", "x", "inf", float("nan"), None, True])
def test_what_is_no_share_is_refused_with_setting_value_rule_and_cure(value):
    with pytest.raises(ValueError) as error:
        exact_share("mifo.p", value)
    assert str(error.value) == f"mifo.p={value} must be a share in [0, 1]; write it as 0.125 or '1/8'"


def test_require_says_setting_value_rule_and_cure():
    require(True, "size", 1, "at least 1", "add one")
    with pytest.raises(ValueError) as error:
        require(False, "size", 0, "at least 1", "add one")
    assert str(error.value) == "size=0 must be at least 1; add one"


def test_phases_are_strings():
    assert Phase("rl") is Phase.RL and Phase.SFT == "sft"


def test_records_cannot_be_changed_and_compare_by_value():
    group = PromptGroup("q", 1, 8, 2)
    assert group == PromptGroup("q", 1, 8, 2)
    with pytest.raises(FrozenInstanceError):
        group.num_correct = 2
    with pytest.raises(FrozenInstanceError):
        Progress(0, 1, 0).step = 1
