"""The demonstration of a data row, and the id that its prompt keeps for the whole run.

The columns are those of OpenR1-Math-46k-8192: ``prompt`` = chat messages, ``target`` = one assistant message or null,
``reward_model.ground_truth`` = the answer; ``prompt_id`` and ``target_source`` (who wrote the target) are optional.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mifo_verl.types import Demonstration

TEACHER = "target_log_probs"
"""The column of the teacher's log-probabilities."""

TARGET = ("target", "target_source", TEACHER)
"""The columns of the demonstrations. They stay on the controller."""


def prompt_id_of(row: Mapping[str, Any]) -> str:
    """The row's ``prompt_id``, or ``p`` and 16 hex digits of the hash of its prompt messages where it has none.

    The hash is of the content alone: the order of the keys, keys that are null (parquet fills them in), and whether
    the messages come as lists or numpy arrays make no difference.
    """
    given = row.get("prompt_id")
    if given is not None:
        return str(given)
    messages = [{key: value for key, value in message.items() if value is not None} for message in row["prompt"]]
    canonical = json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return "p" + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def demonstration_of(row: Mapping[str, Any]) -> Demonstration | None:
    """The row's demonstration, not verified yet; None where ``target`` is null, empty or malformed.

    Well formed is one message with the role ``assistant`` and a text that is not blank, beside a ground truth that is
    a string or an integer.
    """
    text, answer = _text(row.get("target")), _answer(row.get("reward_model"))
    if text is None or answer is None:
        return None
    return Demonstration(prompt_id_of(row), text, answer, str(row.get("target_source") or "dataset"))


def _text(target: Any) -> str | None:
    if target is None or isinstance(target, str | Mapping) or not hasattr(target, "__len__") or len(target) != 1:
        return None
    message = target[0]
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return None
    content = message.get("content")
    return content if isinstance(content, str) and content.strip() else None


def _answer(reward_model: Any) -> str | None:
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    if isinstance(truth, bool) or not isinstance(truth, str | int):
        return None
    return str(truth).strip() or None


def _plain(value: Any) -> Any:
    """numpy arrays and scalars, as pandas reads them from parquet, in Python's own types."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a prompt message holds a {type(value).__name__}, which has no canonical JSON form")
