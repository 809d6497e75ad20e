"""What runs inside a checker for mathematical answers: which part is the answer, and the rules by which two are one.

math-verify reads and compares one formula (``math_value``). What it loses is kept here: shape and order, bases,
units in two parts, words and letters, percent. What cannot be read is never taken for its last number.
"""

import re
from typing import Any

from sympy import Expr, Float, N

from mifo_verl.rewards.choice import chosen, letter_of
from mifo_verl.rewards.extract import PLACES
from mifo_verl.rewards.math_readable import is_readable
from mifo_verl.rewards.math_shape import (
    CLOCK,
    COMPOUND,
    COMPOUNDS,
    CONGRUENCE,
    LETTERS,
    LONGEST,
    NAME,
    PERCENT,
    PERCENT_OF,
    RATIO,
    digits_and_base,
    named_one_by_one,
    rows_of,
    shape_of,
    sides_of,
    values_by_name,
)
from mifo_verl.rewards.math_stated import stated
from mifo_verl.rewards.math_value import UNREADABLE, are_multiples, formula_of, same_value
from mifo_verl.rewards.notation import labelled, squeezed, unify, unit_of, without_clause, without_unit

_WARM_UP = (
    r"\frac{1}{2}", r"\sqrt{3}+2\pi", r"x^2-\frac{3}{x_1}", r"\left(3,\frac{\pi}{2}\right)", r"(-\infty,2]\cup[5,9)",
    r"\{1,2\}", r"x=5", r"3\le x<7", r"10\%", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\sin(2t)e^{-t}", r"2^{n-1}",
    r"12{,}500", r"30^\circ", r"\$5.20", r"\text{even}", r"1,2,3", r"5!", r"\log_2 8", r"\binom{5}{2}",
)  # fmt: skip
_MOST_PARTS = 20
_ONE_LETTER = re.compile(r"\(?([A-J])\)?")
_POINTS_IN_A_ROW = re.compile(r"(?<![a-zA-Z\\])[A-Z](?:\s?[A-Z])+(?![a-zA-Z])")
_VALUE_OF = re.compile(r"\s*\\(?:lim|sum|int|prod|max|min|gcd|operatorname|binom|log|sin|cos|tan)(?![a-zA-Z])")
_RADIANS = re.compile(r"\\pi(?![a-z])|\brad(?:ian)?s?\b")


def prepare(request: dict[str, Any]) -> None:
    """Read the gold answer: what that takes must not be counted against a model's answer."""
    is_readable(request["gold"])


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Whether the text's answer is the gold answer, what was read as the text's answer, and how they were compared.

    Of a request without a text, whether the gold answer is readable.
    """
    gold = request["gold"]
    if "text" not in request:
        return {"readable": is_readable(gold)}
    text = request["text"]
    letter = _ONE_LETTER.fullmatch(unify(gold)) or labelled(unify(gold))[0]
    places = (*PLACES, chosen, stated) if letter else (*PLACES, stated)
    found = next((found for place in places if (found := place(text)) is not None), None)
    if found is None:
        return {"correct": False, "extracted": None, "method": "none"}
    correct, method = same(gold, found)
    return {"correct": correct, "extracted": found, "method": method}


def same(gold: str, found: str) -> tuple[bool, str]:
    """(whether two answers are the same, what says so).

    It is ``value``, mathematics; ``letters``, where letters are what counts; or ``text``: one of them could not be
    read, and so is the same only letter by letter.
    """
    g, f = unify(gold), unify(found)
    if not g or not f or squeezed(g) == squeezed(f):
        return bool(g and f), "text" if not g or UNREADABLE.search(g) else "letters"
    if max(len(g), len(f)) > LONGEST:
        return False, "text"
    for rule in (
        _choice,
        _percent,
        _base,
        _ratio,
        _compound,
        _units,
        _clause,
        _words,
        _congruence,
        _matrix,
        _sequence,
        _equation,
    ):
        verdict = rule(g, f)
        if verdict is not None:
            return verdict
    return same_value(g, f)


Answer = tuple[bool, str] | None
"""A rule's verdict; None if the rule has nothing to say."""


def _choice(g: str, f: str) -> Answer:
    """A letter of a choice, with the value beside it or without."""
    (g_letter, g_value), (f_letter, f_value) = labelled(g), labelled(f)
    if (alone := _ONE_LETTER.fullmatch(g)) or (g_letter and not g_value):
        letter = f_letter or letter_of(f)
        return (letter == (alone[1] if alone else g_letter), "letters") if letter else None
    if g_letter:
        if f_letter or letter_of(f):
            right = (f_letter or letter_of(f)) == g_letter
            return (right, "letters") if not f_letter or not f_value or not right else same(g_value, f_value)
        return same(g_value, f)
    return same(g, f_value) if f_letter and f_value else None


def _percent(g: str, f: str) -> Answer:
    """``75\\%`` is 75, and 0.75 too; a share below 1 % is no number below 1."""
    bodies = [PERCENT.sub("", text).strip() for text in (g, f)]
    if bodies == [g, f] or len(sides_of(g)) > 1 or len(sides_of(f)) > 1:
        return None
    if (g_of := set(PERCENT_OF.findall(g))) and (f_of := set(PERCENT_OF.findall(f))) and g_of != f_of:
        return False, "letters"
    if g != bodies[0] and f != bodies[1]:
        return same(*bodies)
    share, plain = (bodies[0], f) if g != bodies[0] else (bodies[1], g)
    if share.endswith("%"):
        return False, "text"
    value = formula_of(share)
    small = isinstance(value, Expr) and value.is_number and bool(abs(N(value)) < 1)
    verdict = (False, "value") if small else same(share, plain)
    return verdict if verdict[0] else same(rf"\frac{{{share}}}{{100}}", plain)


def _base(g: str, f: str) -> Answer:
    """Digits with a base: both must agree, and a base that one of them leaves out is the question's."""
    (g_digits, g_base), (f_digits, f_base) = map(digits_and_base, (g, f))
    if not g_base and not f_base:
        return None
    return g_digits == f_digits and (g_base == f_base or not g_base or not f_base), "letters"


def _ratio(g: str, f: str) -> Answer:
    """``6:8`` is 3:4 and 3/4; a time is only itself."""
    ratios = [re.split(r"\s*:\s*", text) if RATIO.fullmatch(text) else [] for text in (g, f)]
    clocks = [CLOCK.fullmatch(text) for text in (g, f)]
    if clocks[0] and clocks[1]:
        (g_time, g_half), (f_time, f_half) = (clock.groups() for clock in clocks if clock)
        return g_time == f_time and (g_half.lower() == f_half.lower() or not (g_half and f_half)), "letters"
    if not any(ratios):
        return None
    if any(clocks):
        return ratios[0] == ratios[1], "letters"
    if all(ratios):
        (g_first, *_), (f_first, *_) = ratios
        equal = (Float(a) * Float(f_first) == Float(b) * Float(g_first) for a, b in zip(*ratios, strict=False))
        return len(ratios[0]) == len(ratios[1]) and all(equal), "value"
    parts = ratios[0] or ratios[1]
    quotient = rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    return same(quotient, f if ratios[0] else g) if len(parts) == 2 else (False, "letters")


def _compound(g: str, f: str) -> Answer:
    """``3 hours 20 minutes``: every number counts, and the first letter of its unit."""
    g_parts, f_parts = (COMPOUND.findall(text) if COMPOUNDS.fullmatch(text) else [] for text in (g, f))
    if not g_parts and not f_parts:
        return None
    return _short(g_parts) == _short(f_parts), "letters"


def _short(parts: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(number, unit_of(a or b)[0] or (a or b).strip()[:1]) for number, a, b in parts]


def _units(g: str, f: str) -> Answer:
    """``20 cm`` is not 20 m, and is 0.2 m."""
    g_value, f_value = without_unit(g), without_unit(f)
    if g.endswith(r"\circ") and _RADIANS.search(f):
        return same(rf"\frac{{({g_value})\pi}}{{180}}", f_value)
    if f.endswith(r"\circ") and _RADIANS.search(g):
        return same(g_value, rf"\frac{{({f_value})\pi}}{{180}}")
    g_unit, f_unit = (unit_of(text[len(value) :]) for text, value in ((g, g_value), (f, f_value)))
    if g_unit == f_unit or not g_unit[0] or not f_unit[0]:
        return None
    if g_unit[1] != f_unit[1]:
        return False, "value"
    return same(
        *(rf"\frac{{({value})\cdot {unit[2]}}}{{{unit[3]}}}" for value, unit in ((g_value, g_unit), (f_value, f_unit)))
    )


def _clause(g: str, f: str) -> Answer:
    """``for any constant c`` that only one of them has."""
    g_bare, f_bare = without_clause(g), without_clause(f)
    return same(g_bare, f_bare) if (g_bare != g) != (f_bare != f) and g_bare and f_bare else None


def _words(g: str, f: str) -> Answer:
    """Words and runs of letters are no products: their order counts, and from three letters on not their case."""
    if not (LETTERS.fullmatch(g) and LETTERS.fullmatch(f)):
        g_points, f_points = _POINTS_IN_A_ROW.findall(g), _POINTS_IN_A_ROW.findall(f)
        moved = sorted(map(squeezed, g_points)) != sorted(map(squeezed, f_points))
        return (False, "letters") if moved and sorted("".join(g_points)) == sorted("".join(f_points)) else None
    a, b = squeezed(g), squeezed(f)
    words = [word for word in (g + " " + f).split() if not (word.islower() or word.isupper() or word.istitle())]
    same_letters = (len(a) > 2 or a.casefold() == "no") and a.casefold().rstrip("s") == b.casefold().rstrip("s")
    return a == b or (same_letters and not words), "letters"


def _congruence(g: str, f: str) -> Answer:
    """``x \\equiv 3 \\pmod 7``: each of the three counts."""
    g_match, f_match = CONGRUENCE.fullmatch(g), CONGRUENCE.fullmatch(f)
    if not g_match or not f_match:
        return (False, "value") if g_match or f_match else None
    return all(same(a, b)[0] for a, b in zip(g_match.groups(), f_match.groups(), strict=True)), "value"


def _matrix(g: str, f: str) -> Answer:
    """Two matrices, cell by cell; whatever brackets they have."""
    g_rows, f_rows = rows_of(g), rows_of(f)
    if g_rows is None or f_rows is None:
        return None
    cells = [cell for row in g_rows for cell in row], [cell for row in f_rows for cell in row]
    if list(map(len, g_rows)) != list(map(len, f_rows)) or len(cells[0]) > _MOST_PARTS:
        return False, "value"
    return all(same(a, b)[0] for a, b in zip(*cells, strict=True)), "value"


def _sequence(g: str, f: str) -> Answer:
    """Several values: the order counts in brackets, not in braces or without either; a shape lost is wrong."""
    g, f = named_one_by_one(g, f), named_one_by_one(f, g)
    g_shape, f_shape = shape_of(g), shape_of(f)
    if g_shape is None and f_shape is None:
        return None
    if g_shape is None or f_shape is None:
        brackets, parts = g_shape or f_shape  # type: ignore[misc]
        if brackets == "{}" and len(parts) == 1 and parts[0] != r"\varnothing":
            return same(parts[0], f) if g_shape else same(g, parts[0])
        return (False, "value") if brackets in ("", "{}") else None
    (g_brackets, g_parts), (f_brackets, f_parts) = g_shape, f_shape
    if len(g_parts) != len(f_parts) or len(g_parts) > _MOST_PARTS:
        return False, "value"
    g_named, f_named = values_by_name(g_parts), values_by_name(f_parts)
    if len(g_named) == len(f_named) == len(g_parts):
        return (
            g_named.keys() == f_named.keys() and all(same(g_named[name], f_named[name])[0] for name in g_named)
        ), "value"
    if g_brackets and f_brackets and g_brackets != f_brackets:
        return False, "value"
    named = len(g_named) == len(g_parts) or len(f_named) == len(f_parts)
    if named and "{}" in (g_brackets, f_brackets):
        return False, "value"
    if named or not {g_brackets, f_brackets} <= {"", "{}"}:
        return all(same(a, b)[0] for a, b in zip(g_parts, f_parts, strict=True)), "value"
    left = list(f_parts)
    for part in g_parts:
        match = next((other for other in left if same(part, other)[0]), None)
        if match is None:
            return False, "value"
        left.remove(match)
    return True, "value"


def _equation(g: str, f: str) -> Answer:
    """``x = 5`` is 5 and ``5 = x`` is too; an equation with more than a name on its left is none of its sides."""
    g_sides, f_sides = sides_of(g), sides_of(f)
    if (len(g_sides) > 1) == (len(f_sides) > 1):
        both = len(g_sides) > 1 and squeezed(g_sides[0]) == squeezed(f_sides[0])
        if both:
            return same(g_sides[-1], f_sides[-1])
        return (True, "value") if len(g_sides) == len(f_sides) == 2 and are_multiples(g_sides, f_sides) else None
    sides, other = (g_sides, f) if len(g_sides) > 1 else (f_sides, g)
    value = _value_side(sides)
    if value is None:
        return False, "value"
    return same(value, other) if len(g_sides) > 1 else same(other, value)


def _value_side(sides: list[str]) -> str | None:
    """The side of an equation that is an answer; None if the equation is the answer itself."""
    if all(NAME.fullmatch(side) or _VALUE_OF.match(side) for side in sides[:-1]):
        return sides[-1]
    if len(sides) == 2 and re.fullmatch(r"[a-zA-Z]|\\[a-z]+", sides[1]) and not re.search(r"[a-zA-Z]", sides[0]):
        return sides[0]
    return sides[-1] if all(same(side, sides[-1])[0] for side in sides[:-1]) else None


def warm_up() -> None:
    """Fill the parser's tables with the shapes that answers have: the first LaTeX would take a checker 50 ms."""
    for answer in _WARM_UP:
        check({"gold": answer, "text": f"so the answer is ${answer}$. \\boxed{{{answer}+0}}"})
        check({"gold": answer, "text": f"so the answer is ${answer}$."})
        check({"gold": answer, "text": "The answer is 12.5"})
    formula_of.cache_clear()
