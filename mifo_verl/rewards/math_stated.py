"""The answer that a text without a box states, unless it takes it back, wavers or breaks off behind it."""

import re
from itertools import groupby

from math_verify import ExprExtractionConfig
from math_verify.parser import get_extraction_regexes

from mifo_verl.rewards.math_shape import COMPOUND, COMPOUNDS
from mifo_verl.rewards.math_value import LATEX
from mifo_verl.rewards.notation import unit_of

_PHRASE = re.compile(r"(?i:answer)\**(?:\s+is|\s*[:=])\s*:?\s*([^\n]{1,80}?)\s*(?:\.\s|\.?\s*$|\n)")
_UNFINISHED_WORDS = 4
_COMPOUND_CHARS = 60
_UNANCHORED = 300
_ENDED = re.compile(r"[.!?:)\]}$*\"'\d]\s*$")
_VALUE = r"[$\\(]*-?\d[\d.,/]*[$\\)]*"
_HEDGE = r"(?i:\b(?:not|n't|cannot be|never|nor|than|at least|at most|up to|as many as))"
_TAKEN_BACK = re.compile(
    r"^\W{0,4}(?:but|or|wait|hmm|actually|however|no)\b[^.!?]*$|\b(?:[Ww]ait|[Hh]mm|[Aa]ctually)\b"
    r"|^[\s$)]*\?\s*(?i:no|not|but)\b"
    r"|^[\s$).,;:!-]*(?i:(?:but |and |so )?(?:that|this|it|which))?"
    r"(?: (?:is|was)|'s) (?:wrong|incorrect|not right|not correct)\b"
)
_CONCLUDES = re.compile(
    r"^[\s$),]*(?:so|thus|hence|then|which|therefore|giving|because|since),?"
    r"(?:\s+(?:(?:the|its|our|a)(?:\s+\w+)?|[a-z]|we (?:get|have)|gives(?: us)?))?\s*$"
)
"""Breaks off on a connective, or on what would take a new value behind it."""
_NEW_SENTENCE = re.compile(r"^\W*[.!?]\s+(?!(?i:qed|done|thanks|thank you|cheers)\b)[A-Z][a-z]+[\w\s,'-]*$")
_GOES_ON = re.compile(
    r"(?<![*+])[*+=/×·^-]\s*$|(?i:\b(?:so|and|then|from|is|are|the|to|we|because|but|or|of|a|that|with|by|if|for|as)|,)\s*$"
)
_EITHER = re.compile(r"[\d$)}]\s*,?\s*or\s+(?:(?:maybe|perhaps|possibly|even)\s+)?$")


def stated(text: str) -> str | None:
    """The answer that a text without a box states: behind ``answer is``, else its last formula or number."""
    text = re.sub(rf"\\\$(?=\s*\d)|\bnot\s+{_VALUE},?\s+but\s+", "", text)
    phrases = _PHRASE.findall(text)
    if phrases and re.fullmatch(
        r"[-+\d\s.,/()*^%$]*\d[-+\d\s.,/()*^%$]*(?:(?:or|and|percent|maybe|perhaps|possibly)[-+\d\s.,/()*^%$]*)*",
        phrases[-1],
    ):
        return str(phrases[-1])
    ranked = sorted(
        (
            (rank, pattern)
            for patterns, _ in get_extraction_regexes((LATEX[0], ExprExtractionConfig()))
            for pattern, rank in patterns
        ),
        key=lambda one: one[0],
    )
    for rank, group in groupby(ranked, key=lambda one: one[0]):
        matches = [match for _, pattern in group for match in pattern.finditer(text)]
        if matches:
            last = max(matches, key=lambda match: (match.end(), -match.start()))
            before, rest = text[: last.end()], text[last.end() :]
            if re.search(rf"{_HEDGE}\s+{_VALUE}$", before) or _TAKEN_BACK.search(rest):
                return None
            if rank == _UNANCHORED and _is_cut(text[: last.start() + 1], rest):
                return None
            return _compound(text, last) or _formula(last)
    return None


def _compound(text: str, last: re.Match[str]) -> str | None:
    """``3 hours 20 minutes`` around the number that was found: every part is the answer, if its units are of a kind."""
    start = max(0, last.start() - _COMPOUND_CHARS)
    around = COMPOUNDS.finditer(text, start, last.end() + _COMPOUND_CHARS)
    found = next((found[0].strip() for found in around if found.end() > last.start()), "")
    units = {unit_of(a or b)[:2] for _, a, b in COMPOUND.findall(found)}
    return found if len(units) > 1 and len({quantity for _, quantity in units}) == 1 else None


def _is_cut(before: str, rest: str) -> bool:
    """Whether a text breaks off in a sentence that goes on behind its last value, or wavers between two values."""
    unfinished = len(re.findall(r"[A-Za-z]+", rest)) > _UNFINISHED_WORDS and not _ENDED.search(rest)
    return (
        unfinished
        or bool(_CONCLUDES.match(rest))
        or bool(_NEW_SENTENCE.match(rest))
        or bool(_GOES_ON.search(rest))
        or bool(_EITHER.search(before[-80:]))
    )


def _formula(match: re.Match[str]) -> str:
    """What math-verify's pattern has found, as text."""
    groups = {name: part for name, part in match.groupdict().items() if part}
    formulas = [part for name, part in groups.items() if "latex" in name]
    if not formulas:
        integer = next((part for name, part in groups.items() if name.startswith("integer")), "")
        decimal = next((part for name, part in groups.items() if name.startswith("decimal")), "")
        formulas = [groups.get("expr") or integer + decimal]
    percent = any(name.endswith("percent") for name in groups)
    return ", ".join(map(str.strip, formulas)) + (r"\%" if percent and not formulas[-1].rstrip().endswith("%") else "")
