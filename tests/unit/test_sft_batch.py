"""What SFT trains on: verified, whole demonstrations after the rollout's own prompt tokens (traps 6 and 7)."""

import pytest

from mifo_verl.data.sft_batch import Rejection, build_example
from mifo_verl.types import Demonstration, SftExample

END = 99
ABC = Demonstration("q1", "abc", "7")
# sha256 of the three bytes "abc", as printed in FIPS 180-2
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def encode(text: str) -> list[int]:
    return [ord(letter) - ord("a") + 1 for letter in text]


def refuse(text: str) -> list[int]:
    raise AssertionError(f"encoded {text} of a demonstration that was to be rejected before")


def yes(text: str, answer: str) -> bool:
    return True


def no(text: str, answer: str) -> bool:
    return False


def test_the_response_is_the_text_and_the_end_token_behind_the_prompt_as_given() -> None:
    example = build_example([5, 5, 6], ABC, encode, END, yes, max_response_tokens=4)
    assert example == SftExample("q1", (5, 5, 6), (1, 2, 3, END), ABC_SHA256)


def test_the_prompt_tokens_are_never_rendered_again() -> None:
    odd_prompt = (1000, 0, -1)  # no tokenizer gives these: they must come through untouched
    example = build_example(odd_prompt, ABC, encode, END, yes, 4)
    assert isinstance(example, SftExample) and example.prompt_ids == odd_prompt


@pytest.mark.parametrize(("limit", "fits"), [(4, True), (3, False), (0, False)])
def test_a_response_over_the_limit_is_dropped_whole_and_the_end_token_counts(limit: int, fits: bool) -> None:
    example = build_example([5], ABC, encode, END, yes, limit)
    if fits:
        assert isinstance(example, SftExample) and example.response_ids == (1, 2, 3, END)
    else:
        assert example is Rejection.TOO_LONG


def test_the_prompt_does_not_count_towards_the_response_limit() -> None:
    assert isinstance(build_example([5] * 100, ABC, encode, END, yes, 4), SftExample)


def test_a_missing_demonstration_is_named_first() -> None:
    assert build_example([5], None, refuse, END, no, 0) is Rejection.MISSING


def test_a_wrong_demonstration_is_named_before_a_long_one() -> None:
    assert build_example([5], ABC, refuse, END, no, 0) is Rejection.WRONG


def test_the_checker_is_asked_for_text_and_ground_truth_in_this_order() -> None:
    asked = []
    build_example([5], ABC, encode, END, lambda text, answer: asked.append((text, answer)) or True, 4)
    assert asked == [("abc", "7")]


def test_the_hash_is_that_of_the_utf8_text() -> None:
    # sha256 of the two bytes c3 a9
    example = build_example([5], Demonstration("q", "é", "7"), lambda text: [1], END, yes, 2)
    assert isinstance(example, SftExample)
    assert example.demonstration_sha256 == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
