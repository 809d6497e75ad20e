"""The prompts that models are asked with, as tokens of a real tokenizer."""

import pytest
from transformers import AutoTokenizer

from mifo_verl.tools.evaluate.templates import check_template, fill, messages_of, prompt_tokens, template_names
from mifo_verl.tools.prepare.tiny_model import START_MODEL


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(START_MODEL)


def test_the_templates_are_these():
    assert template_names() == ["chat", "luffy", "none", "prime", "qwen"]


def test_a_question_with_braces_stays_as_it_is():
    question = r"What is $\frac{1}{2}$ of {thoughts} and {question}?"
    assert fill("none", question) == question
    for name in template_names():
        assert fill(name, question).count(question) == 1


def test_qwens_template_asks_for_a_box_and_ends_where_the_assistant_begins():
    text = fill("qwen", "1+1?")
    assert text.startswith(
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    assert text.endswith("<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n")


def test_luffys_template_keeps_the_words_of_its_system_message():
    text = fill("luffy", "1+1?")
    assert 'using the format: "<think>\n {thoughts} </think>\n".' in text
    assert text.endswith("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n")


def test_primes_template_is_a_conversation():
    text = fill("prime", "1+1?")
    assert text.endswith("User: 1+1?\n\nPresent the answer in LaTex format: \\boxed{Your answer}. Assistant:")


def test_chat_asks_with_the_instruction_that_training_asks_with():
    asked = "1+1?\nReason step by step, and write the final answer in \\boxed{}."
    assert messages_of("1+1?", None) == [{"role": "user", "content": asked}]
    assert messages_of("1+1?", "Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_chat_renders_the_messages_as_training_does(tokenizer):
    messages = [{"role": "user", "content": "12+3=?"}]
    ids = prompt_tokens(tokenizer, "chat", "ignored", messages)
    assert tokenizer.decode(ids) == "<|im_start|>user\n12+3=?<|im_end|>\n<|im_start|>assistant\n"


def test_other_templates_leave_the_messages_alone(tokenizer):
    ids = prompt_tokens(tokenizer, "none", "12+3=?", [{"role": "user", "content": "ignored"}])
    assert tokenizer.decode(ids) == "12+3=?"


def test_a_model_without_a_chat_template_cannot_chat(tokenizer):
    bare = AutoTokenizer.from_pretrained(START_MODEL)
    bare.chat_template = None
    with pytest.raises(ValueError, match="template=chat must go with a model that has a chat template"):
        prompt_tokens(bare, "chat", "q", messages_of("q", None))


def test_an_unknown_template_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"template=qwenn must be one of .*did you mean qwen"):
        check_template("qwenn")
