"""Prompt templates: the text files of ``template_texts/``, in which ``{question}`` stands for the question.

- ``none``: the question alone.
- ``qwen``: Qwen2.5-Math's own system message (its model card and evaluation code).
- ``prime``: the prompt of PRIME's zero models (Cui et al. 2025, arXiv 2502.01456, and their released evaluation code).
- ``luffy``: the system message of LUFFY's data and models (Yan et al. 2025, arXiv 2504.14945; OpenR1-Math-46k-8192),
  in Qwen's chat markup.
- ``chat``: the model's own chat template around a user message, which asks for steps and a boxed answer. A row that
  brings messages of its own (verl's parquet files) is rendered as it is, as in training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mifo_verl.errors import nearest

CHAT = "chat"
_FOLDER = Path(__file__).parent / "template_texts"


def template_names() -> list[str]:
    return sorted(file.stem for file in _FOLDER.glob("*.txt"))


def check_template(name: str) -> None:
    """Raise ValueError if there is no such template."""
    if name not in (names := template_names()):
        near = nearest(name, names)
        raise ValueError(f"template={name} must be one of {', '.join(names)}{near}; chat is the model's own")


def fill(name: str, question: str) -> str:
    return (_FOLDER / f"{name}.txt").read_text().replace("{question}", question)


def messages_of(question: str, system: str | None) -> list[dict[str, str]]:
    """The chat that asks a question which brings no messages of its own."""
    user = {"role": "user", "content": fill(CHAT, question)}
    return [{"role": "system", "content": system}, user] if system else [user]


def prompt_tokens(tokenizer: Any, name: str, text: str, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """The prompt as tokens: the ``messages`` by the model's chat template, or the ``text`` in another template.

    Raises ValueError if a model without a chat template is to chat.
    """
    if name != CHAT:
        return tuple(tokenizer(fill(name, text))["input_ids"])  # with the special tokens that the model begins with
    if tokenizer.chat_template is None:
        raise ValueError("template=chat must go with a model that has a chat template; use template=none, for instance")
    plain = [dict(message) for message in messages]
    return tuple(tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=False))
