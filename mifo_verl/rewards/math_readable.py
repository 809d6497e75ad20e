"""Whether a gold answer can be compared with anything but its own letters."""

import re

from mifo_verl.rewards.extract import word_for_none
from mifo_verl.rewards.math_shape import (
    BASE,
    CLOCK,
    COMPOUNDS,
    CONGRUENCE,
    LETTERS,
    LONGEST,
    RATIO,
    RELATION,
    rows_of,
    shape_of,
    sides_of,
)
from mifo_verl.rewards.math_value import UNREADABLE, as_set, formula_of
from mifo_verl.rewards.notation import labelled, unify, without_clause, without_unit

_SENTENCE = re.compile(r"(?:\\text\s*\{)?[A-Za-z][A-Za-z\s.,;'\u2019/-]*\}?")
_READABLE = (LETTERS, BASE, RATIO, CLOCK, _SENTENCE, re.compile(r"\(?[A-J]\)?"))


def is_readable(answer: str) -> bool:
    """Whether a gold answer can be compared with anything but its own letters: words, a choice, or mathematics.

    A word for no answer, such as ``proof``, is none.
    """
    if word_for_none(answer) is not None:
        return False
    text = without_clause(unify(answer))
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return False
    if depth or not text or len(text) > LONGEST:
        return False
    if text.endswith(r"\%"):
        return is_readable(text.removesuffix(r"\%"))
    if rows := rows_of(text):
        return all(is_readable(cell) for row in rows for cell in row)
    shape, sides = shape_of(text), sides_of(text)
    if COMPOUNDS.fullmatch(text):
        return True
    if shape is not None or len(sides) > 1:
        return all(map(is_readable, sides[-1:] if shape is None else shape[1]))
    if congruence := CONGRUENCE.fullmatch(text):
        return all(map(is_readable, congruence.groups()))
    if any(form.fullmatch(text) for form in _READABLE):
        return True
    text = without_unit(labelled(text)[1])
    if re.search(r"frac\{\s*\}|\}\{\s*\}|\\boxed", text):
        return False
    if RELATION.search(text) and as_set(text) is not None:
        return True
    return not UNREADABLE.search(text) and formula_of(text) is not None
