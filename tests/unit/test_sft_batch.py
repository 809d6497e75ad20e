"""What SFT trains on: verified, whole demonstrations after the rollout's own prompt tokens (traps 6 and 7)."""

import hashlib
from collections.abc import Sequence

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mifo_verl.data.sft_batch import build_example, continuation
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.types import Demonstration, Rejection, SftExample

END = 99
ABC = Demonstration("q1", "abc", "7")
# sha256 of the three bytes "abc", as printed in FIPS 180-2
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def encode(text: str) -> list[int]:
    return [ord(letter) - ord("a") + 1 for letter in text]


def decode(ids: Sequence[int]) -> str:
    return "?" * len(ids)


def refuse(text: str) -> list[int]:
    raise AssertionError(f"encoded {text} of a demonstration that was to be rejected before")


def yes(text: str, answer: str) -> bool:
    return True


def no(text: str, answer: str) -> bool:
    return False


def test_the_response_is_the_text_and_the_end_token_behind_the_prompt_as_given() -> None:
    example = build_example([5, 5, 6], ABC, encode, decode, END, yes, max_response_tokens=4)
    assert example == SftExample("q1", (5, 5, 6), (1, 2, 3, END), ABC_SHA256)


def test_the_prompt_tokens_are_never_rendered_again() -> None:
    odd_prompt = (1000, 0, -1)  # no tokenizer gives these: they must come through untouched
    example = build_example(odd_prompt, ABC, encode, decode, END, yes, 4)
    assert isinstance(example, SftExample) and example.prompt_ids == odd_prompt


@pytest.mark.parametrize(("limit", "fits"), [(4, True), (3, False), (0, False)])
def test_a_response_over_the_limit_is_dropped_whole_and_the_end_token_counts(limit: int, fits: bool) -> None:
    example = build_example([5], ABC, encode, decode, END, yes, limit)
    if fits:
        assert isinstance(example, SftExample) and example.response_ids == (1, 2, 3, END)
    else:
        assert example is Rejection.TOO_LONG


def test_the_prompt_does_not_count_towards_the_response_limit() -> None:
    assert isinstance(build_example([5] * 100, ABC, encode, decode, END, yes, 4), SftExample)


def test_a_missing_demonstration_is_named_first() -> None:
    assert build_example([5], None, refuse, decode, END, no, 0) is Rejection.MISSING


def test_a_wrong_demonstration_is_named_before_a_long_one() -> None:
    assert build_example([5], ABC, refuse, decode, END, no, 0) is Rejection.WRONG


def test_the_checker_is_asked_for_text_and_ground_truth_in_this_order() -> None:
    asked = []
    build_example([5], ABC, encode, decode, END, lambda text, answer: asked.append((text, answer)) or True, 4)
    assert asked == [("abc", "7")]


def test_the_hash_is_that_of_the_utf8_text() -> None:
    # sha256 of the two bytes c3 a9
    example = build_example([5], Demonstration("q", "é", "7"), lambda text: [1], decode, END, yes, 2)
    assert isinstance(example, SftExample)
    assert example.demonstration_sha256 == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"


ASSISTANT = "<|im_start|>assistant\n"
HEAD = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
WORKED = "<think>\n2+2=4\n</think>\n\\boxed{4}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(START_MODEL)


def trained_on(tokenizer: PreTrainedTokenizerBase, generation_prompt: str, text: str) -> tuple[list[int], list[int]]:
    """(prompt ids, response ids) of a demonstration under a chat template that ends a prompt in this way."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2=?"}],
        chat_template=HEAD + "{{ " + repr(generation_prompt) + " }}",
        tokenize=True,
        return_dict=False,
    )
    seen: list[str] = []
    example = build_example(
        prompt,
        Demonstration("q", text, "4"),
        lambda part: tokenizer.encode(part, add_special_tokens=False),
        tokenizer.decode,
        tokenizer.eos_token_id,
        lambda whole, answer: seen.append(whole) is None,
        100,
    )
    assert isinstance(example, SftExample) and example.prompt_ids == tuple(prompt)
    assert seen == [text]  # the reward reads the whole text, whatever is cut for training
    assert example.demonstration_sha256 == hashlib.sha256(text.encode()).hexdigest()
    return prompt, list(example.response_ids)


@pytest.mark.parametrize(
    ("generation_prompt", "text", "response"),
    [
        (ASSISTANT, WORKED, WORKED),
        (ASSISTANT + "<think>\n", WORKED, "2+2=4\n</think>\n\\boxed{4}"),
        (ASSISTANT + "<think>", WORKED, "\n2+2=4\n</think>\n\\boxed{4}"),
        (ASSISTANT + "<think>\n", "<think>2+2=4</think>\\boxed{4}", "2+2=4</think>\\boxed{4}"),
        (ASSISTANT + "<think>\n", " \n<think> \n2+2=4</think>\\boxed{4}", "2+2=4</think>\\boxed{4}"),
        (ASSISTANT + "<think>\n", "2+2=4</think>\\boxed{4}", "2+2=4</think>\\boxed{4}"),
        (ASSISTANT + "<think>\n\n</think>\n\n", WORKED, WORKED),
        (ASSISTANT + "<think>\n\n</think>\n\n", "It is \\boxed{4}", "It is \\boxed{4}"),
    ],
)
def test_a_tag_that_the_template_opens_is_not_trained_on_again(
    tokenizer: PreTrainedTokenizerBase, generation_prompt: str, text: str, response: str
) -> None:
    prompt_ids, response_ids = trained_on(tokenizer, generation_prompt, text)
    assert response_ids == [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
    assert tokenizer.decode(prompt_ids).endswith(generation_prompt)


def test_a_template_that_opens_the_block_gives_the_ids_of_one_that_does_not(tokenizer: PreTrainedTokenizerBase) -> None:
    # <think> and </think> are single tokens of this tokenizer
    tag = tokenizer.convert_tokens_to_ids("<think>")
    closed, opened = (trained_on(tokenizer, ASSISTANT + end, WORKED) for end in ("", "<think>\n"))
    assert closed[0] + closed[1] == opened[0] + opened[1]
    assert (closed[0] + closed[1]).count(tag) == (opened[0] + opened[1]).count(tag) == 1


def test_only_an_opening_at_the_very_end_of_the_prompt_counts() -> None:
    assert continuation("<think>a", "speak after <think>. assistant:") == "<think>a"
    assert continuation("so <think>a", "assistant: <think>\n") == "so <think>a"


def test_the_cut_text_is_what_has_to_fit(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = tokenizer.encode("<think>\n", add_special_tokens=False)
    arguments = (lambda text: tokenizer.encode(text, add_special_tokens=False), tokenizer.decode, END, yes)
    # four characters, the closing tag and the end token; with its own tag it would be seven
    assert isinstance(build_example(prompt, Demonstration("q", "<think>2+2=</think>", "4"), *arguments, 6), SftExample)
    assert build_example(prompt, Demonstration("q", "<think>2+2=4</think>", "4"), *arguments, 6) is Rejection.TOO_LONG
