"""Reward for multiple choice: the letter that a response ends with, A to J, against the letter that is right.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.choice`` and ``name=compute_score``.
"""

import re

from mifo_verl.rewards.extract import answer_part, last_boxed
from mifo_verl.rewards.verdict import Verdict, binary, reward_function

_STYLE = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|rm|bf)\b\s*|[\s{}$*()\[\]]+")
_LETTER_FIRST = re.compile(r"([A-Ja-j])(?:[.:,)].*)?", re.DOTALL)
_STATED = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?(?:\s*:)?[\s*$({\[]{0,8}"
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{\(?)?([A-J])(?![A-Za-z'\u2019])"
)
_ALONE = re.compile(r"^[\s*$(\[]{0,8}([A-J])[\s*$)\].:]{0,8}$", re.MULTILINE)


def letter_of(text: str) -> str | None:
    """The letter of a choice written as ``B``, ``(b)``, ``B.``, ``\\text{(B)}``, ``B) 42``; None for anything else."""
    stripped = text.strip()
    match = _LETTER_FIRST.fullmatch(stripped) or _LETTER_FIRST.fullmatch(stripped.lstrip("(["))
    if match is None:
        match = re.fullmatch(r"([A-Ja-j])\.?", _STYLE.sub("", stripped))
    return None if match is None else match[1].upper()


def chosen(text: str) -> str | None:
    """The letter that a response chooses: of its last box, else its last ``answer is B``, else its last lone letter."""
    boxed = last_boxed(text)
    if boxed is not None:
        return letter_of(boxed)
    for pattern in (_STATED, _ALONE):
        found = pattern.findall(text)
        if found:
            return str(found[-1])
    return None


def verdict(text: str, answer: str, require_think: bool = False) -> Verdict:
    """Whether the letter chosen after ``</think>`` is that of ``answer``.

    Without the tag all of ``text`` is read, or nothing with ``require_think``. Raises ValueError where ``answer`` is no
    letter from A to J.
    """
    right = letter_of(last_boxed(answer) or answer)
    if right is None:
        raise ValueError(f"answer={answer[:80]!r} must be a letter from A to J; use kind=math or exact for others")
    found = chosen(answer_part(text, require_think))
    return binary(found == right, found)


compute_score = reward_function(verdict)
