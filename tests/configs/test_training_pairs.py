"""What a check says of a model's chat template and tokenizer, family by family, and of the training pairs they make."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.model import check_template, check_tokenizer
from mifo_verl.checks.run import Run
from mifo_verl.checks.samples import check_pair
from mifo_verl.compose import compose_config
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.sft_batch import SftExample, build_example
from tests.configs.mistakes import MODEL, Mistake, overrides_of

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
CHATML = TURNS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
HYBRID = CHATML.replace("{% endif %}", SWITCH + "{% endif %}")
THINKING = CHATML.replace("assistant\n'", "assistant\n<think>\n'")
EMPTY = CHATML.replace("assistant\n'", "assistant\n<think>\n\n</think>\n\n'")
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
    " + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DATED = LLAMA.replace("{% for", "{{ date_string or strftime_now('%d %b %Y') }}{% for")
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else m.content + eos_token }}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|User|>' + m.content if m.role == 'user' else '<|Assistant|>'"
    " + m.content.split('</think>')[-1] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
GENERATION = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMAS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|pad|>")
OF_LLAMA = {"bos_token": LLAMAS[0], "eos_token": LLAMAS[2], "pad_token": LLAMAS[5]}
GEMMAS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>")
OF_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
PHIS, MISTRALS, R1S = (
    ("<|user|>", "<|assistant|>", "<|end|>"),
    ("<s>", "</s>", "<pad>"),
    ("<|begin|>", "<|end|>", "<p>"),
)
THINKS = "<think>\nadd\n</think>\n\n\\boxed{$truth}"
OPTION = "data.apply_chat_template_kwargs.enable_thinking"


@dataclass(frozen=True)
class Case:
    """A model's files and data, and the pieces of what has to be said of them, nothing else."""

    template: str | None
    said: list[list[str]] = field(default_factory=list)
    tokens: tuple[str, ...] = ()
    special: dict[str, Any] = field(default_factory=dict)
    ends: list[str] = field(default_factory=lambda: ["<|im_end|>"])
    target: str = THINKS
    prompt: tuple[tuple[str, str], ...] = (("user", "$question"),)
    options: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    puts_first: str = ""


NOT_TOGETHER = "demonstrations do not go together"
CASES = {
    "ChatML": Case(CHATML),
    "a system prompt of the template's own": Case("{{ '<|im_start|>system\nBe Qwen.<|im_end|>\n' }}" + CHATML),
    "a system prompt that speaks of the tags": Case(
        CHATML, prompt=(("system", "Think in <think> and </think>."), ("user", "$question"))
    ),
    "blocks for the loss of other trainers": Case(GENERATION),
    "a base model that ends a text, not a turn": Case(
        CHATML,
        [["write eos_token=<|im_end|> into tokenizer_config.json"]],
        special={"eos_token": "<|endoftext|>", "pad_token": "<|im_start|>"},
        ends=["<|endoftext|>"],
    ),
    "a template that opens the block": Case(THINKING),
    "demonstrations that do not think, behind an opened block": Case(
        THINKING, [[NOT_TOGETHER, "1 opening tags <think> and 0 closing"]], target="\\boxed{$truth}"
    ),
    "demonstrations without the tag that another template has opened": Case(
        CHATML, [[NOT_TOGETHER, "0 opening tags <think> and 1 closing"]], target="add</think>\\boxed{$truth}"
    ),
    "the same behind the template that opens it": Case(THINKING, target="add</think>\\boxed{$truth}"),
    "demonstrations that think twice": Case(
        CHATML, [[NOT_TOGETHER, "2 opening"]], target="<think>a</think><think>b</think>\\boxed{$truth}"
    ),
    "an empty block": Case(EMPTY, [[NOT_TOGETHER, "40 of 40", "2 opening tags", "take the tags out of the template"]]),
    "an empty block before plain answers": Case(EMPTY, target="\\boxed{$truth}"),
    "an empty block where that is asked for": Case(
        HYBRID, [[NOT_TOGETHER, f"write ++{OPTION}=true"]], options=(f"+{OPTION}=false",)
    ),
    "the cure of that": Case(HYBRID, options=(f"+{OPTION}=false", f"++{OPTION}=true")),
    "an option that the template does not read": Case(
        HYBRID,
        [["enable_thinkin=False", "is not read", "did you mean enable_thinking?"]],
        options=(f"+{OPTION[:-1]}=false",),
    ),
    "an option that verl gives itself": Case(
        CHATML, [["tokenize=False must be left out"]], options=("+data.apply_chat_template_kwargs.tokenize=false",)
    ),
    "Llama": Case(LLAMA, tokens=LLAMAS, special=OF_LLAMA, ends=["<|end_of_text|>", "<|eot_id|>"]),
    "its base": Case(
        LLAMA,
        [["write eos_token=<|eot_id|> into tokenizer_config.json"]],
        LLAMAS,
        OF_LLAMA | {"eos_token": "<|end_of_text|>"},
        ["<|end_of_text|>"],
    ),
    "a first token from the template and from the tokenizer": Case(
        LLAMA, tokens=LLAMAS, special=OF_LLAMA, ends=["<|eot_id|>"], puts_first="<|begin_of_text|>"
    ),
    "two first tokens": Case("{{ bos_token }}" + LLAMA, [["twice in a row"]], LLAMAS, OF_LLAMA, ["<|eot_id|>"]),
    "no first token": Case(
        LLAMA.replace("{{ bos_token }}", ""),
        [["begins without <|begin_of_text|>"]],
        LLAMAS,
        OF_LLAMA,
        ["<|eot_id|>"],
        puts_first="<|begin_of_text|>",
    ),
    "the day's date": Case(DATED, [["the day's date", "date_string=26 Jul 2024"]], LLAMAS, OF_LLAMA, ["<|eot_id|>"]),
    "a date that is set": Case(
        DATED,
        tokens=LLAMAS,
        special=OF_LLAMA,
        ends=["<|eot_id|>"],
        options=("+data.apply_chat_template_kwargs.date_string=26 Jul 2024",),
    ),
    "Mistral, whose question's end opens the answer": Case(
        MISTRAL, tokens=MISTRALS, special={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, ends=["</s>"]
    ),
    "Mistral before a system message": Case(
        MISTRAL,
        [["chat_template must render", "must alternate"]],
        MISTRALS,
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        ["</s>"],
        prompt=(("system", "Be brief."), ("user", "$question")),
    ),
    "Phi, which ends the turn and then the text": Case(
        PHI,
        [["write eos_token=<|end|> into tokenizer_config.json"]],
        PHIS,
        {"eos_token": "<|endoftext|>", "pad_token": "<|im_start|>"},
        ["<|endoftext|>", "<|end|>"],
    ),
    "Gemma": Case(
        GEMMA,
        [["write eos_token=<end_of_turn> into tokenizer_config.json"]],
        GEMMAS,
        OF_GEMMA,
        ["<eos>", "<end_of_turn>"],
    ),
    "Gemma as it is cured": Case(
        GEMMA, tokens=GEMMAS, special=OF_GEMMA | {"eos_token": "<end_of_turn>"}, ends=["<eos>", "<end_of_turn>"]
    ),
    "Gemma before a system message": Case(
        GEMMA,
        [["chat_template must render", "System role not supported"]],
        GEMMAS,
        OF_GEMMA | {"eos_token": "<end_of_turn>"},
        ["<end_of_turn>"],
        prompt=(("system", "Be brief."), ("user", "$question")),
    ),
    "a template that needs a system message, before validation rows without one": Case(
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML,
        [["chat_template must render", "no system"]],
        prompt=(("system", "Be brief."), ("user", "$question")),
    ),
    "R1, which drops the thoughts of earlier turns": Case(
        R1, tokens=R1S, special={"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<p>"}, ends=["<|end|>"]
    ),
    "no opening of the answer": Case(TURNS, [["renders no generation prompt", "im_start"]]),
    "an opening that is always there": Case(TURNS + "{{ '<|im_start|>assistant\n' }}"),
    "no template": Case(None, [["chat_template=None must be set"]]),
    "a path for a template": Case(
        CHATML,
        [["custom_chat_template=chat.jinja must be the template's text"], ["ends an answer with 'chat.jinja'"]],
        options=("actor_rollout_ref.model.custom_chat_template=chat.jinja",),
    ),
    "an end that is text": Case(
        CHATML.replace("<|im_end|>", "<|eom|>"), [["ends an answer with '<|eom|>'", "write {{ eos_token }}"]]
    ),
    "no end token": Case(
        CHATML,
        [["eos_token=None must be set"], ["write eos_token=<|im_end|> into tokenizer_config.json"]],
        special={"eos_token": None},
    ),
    "another end token in the model": Case(
        CHATML, [["write eos_token_id=[0, 2] into generation_config.json"]], ends=["<|endoftext|>"]
    ),
    "padding that ends": Case(
        CHATML, [["pad_token=<|im_end|> is the end token too"]], special={"pad_token": "<|im_end|>"}
    ),
    "no padding": Case(CHATML, [["pad_token=None is not set"]], special={"pad_token": None}),
    "padding outside of the vocabulary": Case(
        CHATML, [["vocab_size=265 must be at least the 266 tokens"]], special={"pad_token": "[PAD]"}
    ),
    "more tokens than embeddings": Case(
        CHATML, [["vocab_size=265 must be at least the 267 tokens"]], ("<a>", "<b>"), config={"vocab_size": 265}
    ),
}


def model_of(case: Case) -> dict[str, Any]:
    """The edits of the model's folder: the case's special tokens behind the vocabulary, its ends and its template."""
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    ids = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2} | {t: 265 + n for n, t in enumerate(case.tokens)}
    like = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [like | {"id": ids[token], "content": token} for token in case.tokens]
    if first := case.puts_first:
        one, two = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": first, "type_id": 0}}, one],
            "pair": [one, two],
            "special_tokens": {first: {"id": first, "ids": [ids[first]], "tokens": [first]}},
        }
    ends = [ids[token] for token in case.ends]
    return {
        "config": {"vocab_size": 265 + len(case.tokens), "eos_token_id": ends, **case.config},
        "tokenizer_config": case.special,
        "chat_template": case.template,
        "files": {
            "tokenizer.json": json.dumps(tokenizer),
            "generation_config.json": json.dumps({"eos_token_id": ends}),
        },
    }


def run_of(case: Case, folder: Path) -> Run:
    messages = [{"role": role, "content": content} for role, content in case.prompt]
    train = {"set": {"prompt": messages, "target": [{"role": "assistant", "content": case.target}]}}
    mistake = Mistake("pair", "pair", [], overrides=list(case.options), train=train, model=model_of(case))
    overrides = overrides_of(mistake, folder)
    return Run(compose_config(overrides).node, overrides)


def said_of(run: Run) -> list[str]:
    found = Findings()
    for check in (check_tokenizer, check_template, check_pair):
        with found.of(check.__name__):
            check(run, found)
    return [str(finding) for finding in found.errors() + found.warnings()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_pair_is_right_or_what_is_wrong_is_said(case, tmp_path):
    said = said_of(run_of(case, tmp_path / "run"))
    assert len(said) == len(case.said), "\n".join(said)
    for pieces, message in zip(case.said, said, strict=True):
        assert all(piece in message for piece in pieces) and "; " in message, message


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.said and "\\" in case.target])
def test_a_pair_goes_on_from_the_rollouts_own_prompt_and_ends_where_a_rollout_stops(case, tmp_path):
    run = run_of(case, tmp_path / "run")
    assert said_of(run) == []
    row, tokenizer = run.scans("data.train_files")[0].sample[0], run.tokenizer
    prompt_ids = run.render(row["prompt"], tokenize=True)
    plain, asked = partial(tokenizer.encode, add_special_tokens=False), []

    def is_correct(text: str, answer: str) -> bool:
        asked.append(text)
        return True

    demonstration, end = demonstration_of(row), tokenizer.eos_token_id
    example = build_example(prompt_ids, demonstration, plain, tokenizer.decode, end, is_correct, 10_000)
    assert isinstance(example, SftExample) and list(example.prompt_ids) == prompt_ids
    assert asked == [row["target"][0]["content"]], "the reward reads all of it"
    assert tokenizer.decode(example.response_ids[-1]) in case.ends
    last = row["prompt"][-1]["content"]
    ids = [*example.prompt_ids, *example.response_ids]
    assert run.pair == [tokenizer.decode([token]) for token in ids[:30]], "check shows the first 30 tokens"
    answer = tokenizer.decode(ids).rpartition(last)[2]
    assert answer.count("<think>") == answer.count("</think>") <= 1
