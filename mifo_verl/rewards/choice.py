"""Reward for multiple choice: the letter that a response ends with, A to J, against the letter that is right.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.choice`` and ``name=compute_score``.
"""

import re

from mifo_verl.rewards.extract import answer_part, answer_tag, last_boxed
from mifo_verl.rewards.verdict import Verdict, binary, reward_function

_STYLE = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|rm|bf)\b\s*|[\s{}$*()\[\]]+")
_LETTER_FIRST = re.compile(r"([A-Ja-j])(?:[.:,)].*)?", re.DOTALL)
_LABEL = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{\s*\(?([A-J])\)?[.:]?\s*\}[.:)]?(?:[\s~\\].*)?", re.DOTALL)
_PREFIX = re.compile(r"(?:\\text\{)?\s*(?i:(?:the\s+)?(?:final\s+)?(?:answer|option|choice))(?i:\s+is)?\s*[:\s]\s*")
_OPEN = r"[\s*$({\[\"\u201c]{0,8}(?:\\(?:text|textbf|mathrm|mathbf)\{\(?)?"
_IS = r"(?i:\s+(?:is|must be|should be|would be)(?:\s+(?:definitely|clearly|indeed|therefore|thus|probably))?)"
_STATED = re.compile(
    rf"(?i:answer|option|choice)(?:{_IS}(?i:\s+not\s+{_OPEN}[A-J][)}}*]{{0,3}},?\s+but)?)?(?:\s*[:=\u2013-])?{_OPEN}"
    r"([A-J](?![A-Za-z'\u2019])|[a-j](?=[\s*.)\]}$]*(?:\n|$)))"
)
_TEXT = r"\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*"
_MORE = re.compile(
    rf"[)}}*\]]{{0,3}}{_TEXT}(?:/|,|&|\bor\b|\band\b(?:/or\b)?)(?:\s+(?:maybe|perhaps|possibly|even))?\s*\}}?{_TEXT}[({{*]{{0,3}}[A-J](?![A-Za-z'\u2019])"
)
_ARTICLE = re.compile(
    r"[AI]\s+(?!(?:because|since|as|which|due|for|by|with|from|based|given|and|or|but|is|in|not|if)\b)[a-z]"
)
_ALONE = re.compile(r"^[\s*$(\[]{0,8}([A-J])[\s*$)\].:]{0,8}$", re.MULTILINE)


def letter_of(text: str) -> str | None:
    """The letter of a choice: ``B``, ``(b)``, ``B.``, ``\\text{(B)}``, ``B) 42``, ``Answer: B``; None for all else."""
    stripped = text.strip()
    stated = _PREFIX.match(stripped)
    if stated and stated.end() < len(stripped):
        stripped = stripped[stated.end() :].removesuffix("}")
    match = _LETTER_FIRST.fullmatch(stripped) or _LETTER_FIRST.fullmatch(stripped.lstrip("(["))
    match = match or _LABEL.fullmatch(stripped) or re.fullmatch(r"([A-Ja-j])\.?", _STYLE.sub("", stripped))
    return None if match is None or _MORE.match(stripped, match.end(1)) else match[1].upper()


def chosen(text: str) -> str | None:
    """The letter that a response chooses: of its last box or answer tag, else its last ``answer is B``, else its last
    lone letter. Several letters (``A/B``) choose none, and ``answer is A man`` has an article."""
    tagged = answer_tag(text)
    boxed = last_boxed(text) if tagged is None else tagged
    if boxed is not None:
        return letter_of(boxed)
    stated = [match for match in _STATED.finditer(text) if not _ARTICLE.match(text, match.start(1))]
    if stated:
        last = stated[-1]
        return None if _MORE.match(text, last.end(1)) else last[1].upper()
    alone = _ALONE.findall(text)
    return str(alone[-1]) if alone else None


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
