"""What runs inside a checker for mathematical answers: which part is the answer, its shape, and math-verify for values.

math-verify reads and compares one formula. What it loses is kept here: shape and order, bases, units in two parts,
words and letters, percent, very small and very large values. What cannot be read is never taken for its last number.
"""

import re
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from math_verify.grader import unwrap_fcs
from math_verify.parser import get_extraction_regexes
from sympy import Basic, Expr, FiniteSet, Float, I, Integer, N, Reals, Set, Union, preorder_traversal

from mifo_verl.rewards.choice import chosen, letter_of
from mifo_verl.rewards.extract import PLACES
from mifo_verl.rewards.notation import bare, closing, labelled, squeezed, unify, unit_of, without_clause, without_unit

_WARM_UP = (
    r"\frac{1}{2}", r"\sqrt{3}+2\pi", r"x^2-\frac{3}{x_1}", r"\left(3,\frac{\pi}{2}\right)", r"(-\infty,2]\cup[5,9)",
    r"\{1,2\}", r"x=5", r"3\le x<7", r"10\%", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\sin(2t)e^{-t}", r"2^{n-1}",
    r"12{,}500", r"30^\circ", r"\$5.20", r"\text{even}", r"1,2,3", r"5!", r"\log_2 8", r"\binom{5}{2}",
)  # fmt: skip
_MOST_PARTS = 20
_MATRIX = re.compile(
    r"\(?\s*\\begin\s*\{(?:[pb]?matrix|array)\}(?:\s*\{[lcr|]*\})?((?:[^\\]|\\(?!begin|end))*)\\end\s*\{\w+\}\s*\)?",
    re.DOTALL,
)
_LISTS = re.compile(r"\[\s*(\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])+)\s*\]")
"""``[[1,2],[3,4]]``, a matrix in plain text."""
_LONGEST = 3000
"""A longer answer is compared letter by letter."""
_LATEX = (
    LatexExtractionConfig(normalization_config=replace(LatexExtractionConfig().normalization_config, units=False)),
)
"""math-verify takes letters for units (``2ab`` for 2); ``notation`` knows better."""
_BASE = re.compile(r"(-?)\(?([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\)?_\{?(\d{1,2}|[a-z]{3,7})\}?")
_BASES = {word: n for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}
_RATIO = re.compile(r"(\d+(?:\.\d+)?)((?:\s*:\s*\d+(?:\.\d+)?)+)")
_CLOCK = re.compile(r"(\d{1,2}:[0-5]\d)\s*(?:\\text\s*\{)?\s*([AaPp]?)(?:\.?\s*[Mm]\.?)?\s*\}?")
_LETTERS = re.compile(r"[A-Za-z]{2,}(?:\s+[A-Za-z]+)*|[A-Z](?:\s+[A-Z])+")
_SENTENCE = re.compile(r"(?:\\text\s*\{)?[A-Za-z][A-Za-z\s.,;'\u2019/-]*\}?")
_READABLE = (_LETTERS, _BASE, _RATIO, _CLOCK, _SENTENCE, re.compile(r"\(?[A-J]\)?"))
_ONE_LETTER = re.compile(r"\(?([A-J])\)?")
_POINTS_IN_A_ROW = re.compile(r"(?<![a-zA-Z\\])[A-Z](?:\s?[A-Z])+(?![a-zA-Z])")
_NAME = re.compile(r"(?![a-z]{2}$)(?:\\[a-zA-Z]+|[A-Za-z|{}'\s]|_\{?\w+\}?|\([A-Za-z0-9,\s]*\)|\^\{?-1\}?){1,40}")
"""``x``, ``f(x)``, ``\\angle ABC``, ``a_{n}``, ``area``; not ``xy``, which is a product."""
_VALUE_OF = re.compile(r"\s*\\(?:lim|sum|int|prod|max|min|gcd|operatorname|binom|log|sin|cos|tan)(?![a-zA-Z])")
_CONGRUENCE = re.compile(r"([^,;]+?)\\equiv([^,;]+?)\\pmod\{(\w+)\}")
_UNREADABLE = re.compile(
    r'"\s*:|'
    r"\\ldots|\\equiv|\\pmod|\\mod|\\bmod|\\text|\\mathrm|\\mbox|\\(?:coth|sech|csch)(?![a-z])|\\begin\{cases\}|\\overset"
)
_GREEK = (
    r"\\(?i:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|(?:var)?phi|chi"
    r"|psi|omega)(?![a-zA-Z])"
)
_SYMBOL = re.compile(
    r"(?P<skip>\\(?:mathbb|mathcal|begin|end|operatorname|text|variable)\s*\{[^{}]*\})"
    r"|\\frac\{(?P<derivative>(?:d|\\partial)(?:\^\{?\d\}?)?\s*[a-zA-Z]\s*\}\{\s*(?:d|\\partial)\s*[a-zA-Z](?:\^\{?\d\}?)?)\s*\}"
    rf"|(?P<letter>{_GREEK}|(?<![\\])[a-zA-Z](?<!\\))(?P<primes>'*)(?P<under>_(?:\w|\{{[^{{}}]*\}}|\\[a-zA-Z]+))?"
    r"|\\[a-zA-Z]+"
)
"""The symbols of a formula; of commands and their words none."""
_RELATION = re.compile(r"(?<![<>=])[<>]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
_INDEX_I = re.compile(r"\\(?:sum|prod|vec|hat|mathbf)(?![a-zA-Z])|_\{?i")
_SIGN = re.compile(r"\\pm(?![a-z])")
_LOOSE = re.compile(r"\s*,?\s+(?:or|and)\s+|\s*[,;]\s*")
_COMPOUND = re.compile(
    r"(-?\d[\d.,]*)\s*(?:\\(?:text|mathrm|mbox|textrm|rm)\s*\{([^{}]*)\}|([A-Za-z]{2,}|(?<=\s)[hms](?![a-z])))"
)
_COMPOUNDS = re.compile(rf"(?:{_COMPOUND.pattern}\s*(?:,|and)?\s*){{2,}}")
_PHRASE = re.compile(r"(?i:answer)\**(?:\s+is|\s*[:=])\s*:?\s*([^\n]{1,80}?)\s*(?:\.\s|\.?\s*$|\n)")
_RADIANS = re.compile(r"\\pi(?![a-z])|\brad(?:ian)?s?\b")
_UNFINISHED_WORDS = 4
_POINTS = (7, 11, 13, 17, 19)


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
    places = (*PLACES, chosen, _stated) if letter else (*PLACES, _stated)
    found = next((found for place in places if (found := place(text)) is not None), None)
    if found is None:
        return {"correct": False, "extracted": None, "method": "none"}
    correct, method = same(gold, found)
    return {"correct": correct, "extracted": found, "method": method}


def is_readable(answer: str) -> bool:
    """Whether a gold answer can be compared with anything but its own letters: words, a choice, or mathematics."""
    text = without_clause(unify(answer))
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return False
    if depth or not text or len(text) > _LONGEST:
        return False
    if text.endswith(r"\%"):
        return is_readable(text.removesuffix(r"\%"))
    if rows := _rows(text):
        return all(is_readable(cell) for row in rows for cell in row)
    shape, sides = _shape(text), _sides(text)
    if _COMPOUNDS.fullmatch(text):
        return True
    if shape is not None or len(sides) > 1:
        return all(map(is_readable, sides[-1:] if shape is None else shape[1]))
    if congruence := _CONGRUENCE.fullmatch(text):
        return all(map(is_readable, congruence.groups()))
    if any(form.fullmatch(text) for form in _READABLE):
        return True
    text = without_unit(labelled(text)[1])
    if re.search(r"frac\{\s*\}|\}\{\s*\}|\\boxed", text):
        return False
    if _RELATION.search(text) and _as_set(text) is not None:
        return True
    return not _UNREADABLE.search(text) and _parsed(text) is not None


def same(gold: str, found: str) -> tuple[bool, str]:
    """(whether two answers are the same, what says so).

    It is ``value``, mathematics; ``letters``, where letters are what counts; or ``text``: one of them could not be
    read, and so is the same only letter by letter.
    """
    g, f = unify(gold), unify(found)
    if not g or not f or squeezed(g) == squeezed(f):
        return bool(g and f), "text" if not g or _UNREADABLE.search(g) else "letters"
    if max(len(g), len(f)) > _LONGEST:
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
    return _same_value(g, f)


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
    bodies = [text.removesuffix(r"\%").strip() for text in (g, f)]
    if bodies == [g, f]:
        return None
    if g != bodies[0] and f != bodies[1]:
        return same(*bodies)
    share, plain = (bodies[0], f) if g != bodies[0] else (bodies[1], g)
    if share.endswith("%"):
        return False, "text"
    value = _parsed(share)
    small = isinstance(value, Expr) and value.is_number and bool(abs(N(value)) < 1)
    verdict = (False, "value") if small else same(share, plain)
    return verdict if verdict[0] else same(rf"\frac{{{share}}}{{100}}", plain)


def _base(g: str, f: str) -> Answer:
    """Digits with a base: both must agree, and a base that one of them leaves out is the question's."""
    (g_digits, g_base), (f_digits, f_base) = map(_digits_and_base, (g, f))
    if not g_base and not f_base:
        return None
    return g_digits == f_digits and (g_base == f_base or not g_base or not f_base), "letters"


def _digits_and_base(text: str) -> tuple[str, str]:
    match = _BASE.fullmatch(squeezed(re.sub(r"\\(?:text|mathrm)\s*\{(\w+)\}", r"\1", text)))
    base = str(_BASES.get(match[3], match[3])) if match else ""
    if match is None or not base.isdecimal() or int(base) <= (1 if re.search(r"\d", match[2]) else 10):
        return squeezed(text).upper(), ""
    return match[1] + match[2].upper(), base


def _ratio(g: str, f: str) -> Answer:
    """``6:8`` is 3:4 and 3/4; a time is only itself."""
    ratios = [re.split(r"\s*:\s*", text) if _RATIO.fullmatch(text) else [] for text in (g, f)]
    clocks = [_CLOCK.fullmatch(text) for text in (g, f)]
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
    g_parts, f_parts = (_COMPOUND.findall(text) if _COMPOUNDS.fullmatch(text) else [] for text in (g, f))
    if not g_parts and not f_parts:
        return None
    return [(n, a or b) for n, a, b in _short(g_parts)] == [(n, a or b) for n, a, b in _short(f_parts)], "letters"


def _short(parts: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    def name(unit: str) -> str:
        return unit_of(unit)[0] or unit.strip()[:1]

    return [(number, name(first), name(second)) for number, first, second in parts]


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
    if not (_LETTERS.fullmatch(g) and _LETTERS.fullmatch(f)):
        g_points, f_points = _POINTS_IN_A_ROW.findall(g), _POINTS_IN_A_ROW.findall(f)
        moved = sorted(map(squeezed, g_points)) != sorted(map(squeezed, f_points))
        return (False, "letters") if moved and sorted("".join(g_points)) == sorted("".join(f_points)) else None
    a, b = squeezed(g), squeezed(f)
    words = [word for word in (g + " " + f).split() if not (word.islower() or word.isupper() or word.istitle())]
    same_letters = (len(a) > 2 or a.casefold() == "no") and a.casefold().rstrip("s") == b.casefold().rstrip("s")
    return a == b or (same_letters and not words), "letters"


def _congruence(g: str, f: str) -> Answer:
    """``x \\equiv 3 \\pmod 7``: each of the three counts."""
    g_match, f_match = _CONGRUENCE.fullmatch(g), _CONGRUENCE.fullmatch(f)
    if not g_match or not f_match:
        return (False, "value") if g_match or f_match else None
    return all(same(a, b)[0] for a, b in zip(g_match.groups(), f_match.groups(), strict=True)), "value"


def _matrix(g: str, f: str) -> Answer:
    """Two matrices, cell by cell; whatever brackets they have."""
    g_rows, f_rows = _rows(g), _rows(f)
    if g_rows is None or f_rows is None:
        return None
    cells = [cell for row in g_rows for cell in row], [cell for row in f_rows for cell in row]
    if list(map(len, g_rows)) != list(map(len, f_rows)) or len(cells[0]) > _MOST_PARTS:
        return False, "value"
    return all(same(a, b)[0] for a, b in zip(*cells, strict=True)), "value"


def _rows(text: str) -> list[list[str]] | None:
    """The cells of a matrix; None for anything else."""
    if lists := _LISTS.fullmatch(text):
        return [row.split(",") for row in re.findall(r"\[([^\[\]]*)\]", lists[1])]
    match = _MATRIX.fullmatch(text.replace("[", "(").replace("]", ")"))
    return match and [row.split("&") for row in match[1].split(r"\\") if row.strip()]


def _sequence(g: str, f: str) -> Answer:
    """Several values: the order counts in brackets, not in braces or without either; a shape lost is wrong."""
    g, f = _named_one_by_one(g, f), _named_one_by_one(f, g)
    g_shape, f_shape = _shape(g), _shape(f)
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
    g_named, f_named = _names(g_parts), _names(f_parts)
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


def _named_one_by_one(text: str, other: str) -> str:
    """``(x, y) = (1, 2)`` as ``x = 1, y = 2`` if the other answer is written so."""
    sides = [_shape(side) for side in _sides(text)]
    if len(sides) != 2 or not sides[0] or not sides[1] or len(sides[0][1]) != len(sides[1][1]):
        return text
    names = _names(_split(other))
    return ", ".join(map("=".join, zip(sides[0][1], sides[1][1], strict=True))) if names else text


def _shape(text: str) -> tuple[str, list[str]] | None:
    """(brackets, parts) of several values; None for one value, a matrix, or inequalities."""
    if "\\begin" in text or _RELATION.search(text):
        return None
    if text.startswith(r"\{") and closing(text, 1) == len(text) - 1:
        return "{}", _split(text[2:-2])
    if text[:1] in ("(", "[") and closing(text, 0) == len(text) - 1:
        parts = _split(text[1:-1])
        return (text[0] + text[-1], parts) if len(parts) > 1 else None
    parts = _split(text)
    return ("", parts) if len(parts) > 1 else None


def _split(text: str) -> list[str]:
    """The parts between commas, ``and``, ``or`` outside all brackets; ``a \\pm b`` counts as two."""
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        if text[index] in "([{":
            depth += 1
        elif text[index] in ")]}":
            depth -= 1
        elif depth == 0 and (match := _LOOSE.match(text, index)):
            parts.append(text[start:index])
            start = index = match.end()
            continue
        index += 1
    parts = [part for part in [*parts, text[start:]] if part.strip()]
    signs = [[_SIGN.sub(sign, part) for sign in "+-"] if len(_SIGN.findall(part)) == 1 else [part] for part in parts]
    return [bare(part) for pair in signs for part in pair]


def _names(parts: list[str]) -> dict[str, str]:
    """Values by name where every part is ``name = value`` and no name comes twice; else empty."""
    sides = [_sides(part) for part in parts]
    named = {squeezed(side[0]): side[-1] for side in sides if len(side) > 1 and _NAME.fullmatch(side[0])}
    return named if len(named) == len(parts) else {}


def _sides(text: str) -> list[str]:
    """What stands between the equals signs outside all brackets."""
    sides, start, depth = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "=" and depth == 0 and text[index - 1 : index] not in ("<", ">", "!"):
            sides.append(text[start:index].strip())
            start = index + 1
    return [*sides, text[start:].strip()]


def _equation(g: str, f: str) -> Answer:
    """``x = 5`` is 5 and ``5 = x`` is too; an equation with more than a name on its left is none of its sides."""
    g_sides, f_sides = _sides(g), _sides(f)
    if (len(g_sides) > 1) == (len(f_sides) > 1):
        both = len(g_sides) > 1 and squeezed(g_sides[0]) == squeezed(f_sides[0])
        if both:
            return same(g_sides[-1], f_sides[-1])
        return (True, "value") if len(g_sides) == len(f_sides) == 2 and _are_multiples(g_sides, f_sides) else None
    sides, other = (g_sides, f) if len(g_sides) > 1 else (f_sides, g)
    value = _value_side(sides)
    if value is None:
        return False, "value"
    return same(value, other) if len(g_sides) > 1 else same(other, value)


def _are_multiples(g_sides: list[str], f_sides: list[str]) -> bool:
    """Whether one equation is the other times a number, by its values at some points: sympy's proof is slow."""
    sides: list[Any] = [None if _UNREADABLE.search(side) else _parsed(side) for side in (*g_sides, *f_sides)]
    if not all(isinstance(side, Expr) for side in sides):
        return False
    g, f = sides[0] - sides[1], sides[2] - sides[3]
    names = sorted(g.free_symbols, key=str)
    if not names or set(names) != f.free_symbols or not all(one.is_polynomial(*names) for one in (g, f)):
        return False
    ratios = set()
    for shift in range(4):
        point = {name: Integer((-1) ** shift * value + shift) for name, value in zip(names, _POINTS, strict=False)}
        top, bottom = g.subs(point), f.subs(point)
        ratios.add(top / bottom if bottom != 0 else None)
    return len(names) <= len(_POINTS) and len(ratios) == 1 and ratios.isdisjoint({None, 0})


def _value_side(sides: list[str]) -> str | None:
    """The side of an equation that is an answer; None if the equation is the answer itself."""
    if all(_NAME.fullmatch(side) or _VALUE_OF.match(side) for side in sides[:-1]):
        return sides[-1]
    if len(sides) == 2 and re.fullmatch(r"[a-zA-Z]|\\[a-z]+", sides[1]) and not re.search(r"[a-zA-Z]", sides[0]):
        return sides[0]
    return sides[-1] if all(_same_value(side, sides[-1])[0] for side in sides[:-1]) else None


def _same_value(g: str, f: str) -> tuple[bool, str]:
    """math-verify's word on two formulas; what it cannot read is not the same."""
    g, f = (without_unit(text).strip() for text in (g, f))
    if g and squeezed(g) == squeezed(f):
        return True, "letters"
    if _RELATION.search(g + f) and (g_set := _as_set(g)) is not None and (f_set := _as_set(f)) is not None:
        same_names = not (_RELATION.search(g) and _RELATION.search(f)) or _symbols(g) == _symbols(f)
        if same_names and g_set == f_set:
            return True, "value"
    read = [None if _UNREADABLE.search(text) else _parsed(text) for text in (g, f)]
    if max(map(_num_symbols, (g, f))) > 1:  # with one symbol nobody takes its capital for another
        cased = [None if one is None else _parsed(_spelled(text, True)) for one, text in zip(read, (g, f), strict=True)]
        read = cased if None not in cased else read
    if read[0] is None or read[1] is None:
        return False, "text"
    equal = _is_close(*read) and verify(read[:1], read[1:], timeout_seconds=None, allow_set_relation_comp=True)
    return bool(equal), "value"


@lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    """math-verify's reading; None if it has none."""
    found = next(iter(parse(f"\\boxed{{{_spelled(text)}}}", _LATEX, "no_fallback", parsing_timeout=None)), None)
    if isinstance(found, Basic) and not _INDEX_I.search(text):
        found = found.xreplace({symbol: I for symbol in found.free_symbols if str(symbol) == "i"})
    return found


def _spelled(text: str, with_case: bool = False) -> str:
    """The formula with every symbol that math-verify reads as another one under a name of its own.

    It drops primes, does not know ``E_0``, ``L_{\\odot}`` and ``\\lambda_{\\max}``, and takes ``R`` for ``r``.
    """

    def name(found: re.Match[str]) -> str:
        letter, primes, under = found["letter"], found["primes"] or "", found["under"] or ""
        if found["derivative"]:
            letter = found["derivative"]
        if (primes or under) and found.string[: found.start()].endswith("d"):
            return found[0]  # a differential
        capital = (
            bool(letter)
            and letter.strip("\\")[0].isupper()
            and (with_case or (letter[0] == "\\" and letter != r"\Gamma"))
        )
        if not letter or not (primes or under or capital or found["derivative"]):
            return found[0]
        full = letter + primes + under.removeprefix("_").strip("{}").replace("\\", "").replace(" ", "")
        full = full if with_case or capital else full.lower()
        return r"\variable{" + "".join(c if c.isdigit() or c.islower() else f"Q{ord(c)}" for c in full) + "}"

    return _SYMBOL.sub(name, text)


def _num_symbols(text: str) -> int:
    return len({found["letter"] for found in _SYMBOL.finditer(text) if found["letter"] and found[0] not in "eid"})


def _as_set(text: str) -> Any:
    """Inequalities joined by ``or``, ``and`` or commas, or a set, as a set of numbers; None if it is neither."""
    unequal = re.fullmatch(r"[a-zA-Z]\s*\\ne(?![a-z])((?:[^\\]|\\(?!ne))+)", text)
    excluded = unequal or re.fullmatch(r"\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-)\s*\\\{(.*)\\\}", text)
    if excluded:
        numbers = [_parsed(part) for part in _split(excluded[1])]
        return None if None in numbers else Reals - FiniteSet(*numbers)
    if not _RELATION.search(text):
        found = _parsed(text)
        return found if isinstance(found, Set) else None
    either = re.split(r"\s+or\s+", text)
    sets = []
    for part in either:
        one: Any = Reals
        for condition in re.split(r"\s+and\s+|\s*,\s*", part):
            parsed = _parsed(condition)
            try:
                one = one & unwrap_fcs(parsed).as_set()
            except Exception:  # of several variables, or nothing that sympy turns into a set
                return None
        sets.append(one)
    return Union(*sets)


def _symbols(text: str) -> set[str]:
    return set(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", text))


def _is_close(a: Any, b: Any) -> bool:
    """False if two expressions differ far more than their own size allows: 1/50! and 1/48! are both nearly 0."""
    if not isinstance(a, Expr) or not isinstance(b, Expr):
        return True
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if len(symbols) > len(_POINTS):
        return True
    point = dict(zip(symbols, map(Integer, _POINTS), strict=False))
    try:
        x, y = (N(value.subs(point).doit() if point else value.doit(), 40, maxn=400) for value in (a, b))
        if not (x.is_number and y.is_number) or not (x.is_finite and y.is_finite):
            return True
        inexact = any(isinstance(node, Float) for value in (a, b) for node in preorder_traversal(value))
        return bool(abs(x - y) <= (1e-3 if inexact or point else 1e-12) * max(abs(x), abs(y)))
    except (TypeError, ValueError, AttributeError, RecursionError):  # no number after all
        return True


def _stated(text: str) -> str | None:
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
            for patterns, _ in get_extraction_regexes((_LATEX[0], ExprExtractionConfig()))
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
            return None if rank == _UNANCHORED and _is_cut(text[: last.start() + 1], rest) else _formula(last)
    return None


_UNANCHORED = 300
_ENDED = re.compile(r"[.!?:)\]}$*\"'\d]\s*$")
_VALUE = r"[$\\(]*-?\d[\d.,/]*[$\\)]*"
_HEDGE = r"(?i:\b(?:not|n't|cannot be|never|nor|than|at least|at most|up to|as many as))"
_TAKEN_BACK = re.compile(
    r"^\W{0,4}(?:but|or|wait|hmm|actually|however|no)\b[^.!?]*$|\b(?:[Ww]ait|[Hh]mm|[Aa]ctually)\b"
)
_NEW_SENTENCE = re.compile(r"^\W*[.!?]\s+(?!(?i:qed|done|thanks|thank you|cheers)\b)[A-Z][a-z]+[\w\s,'-]*$")
_GOES_ON = re.compile(
    r"(?<![*+])[*+=/×·^-]\s*$|(?i:\b(?:so|and|then|from|is|are|the|to|we|because|but|or|of|a|that|with|by|if|for|as)|,)\s*$"
)
_EITHER = re.compile(r"[\d$)}]\s*,?\s*or\s+(?:(?:maybe|perhaps|possibly|even)\s+)?$")


def _is_cut(before: str, rest: str) -> bool:
    """Whether a text breaks off in a sentence that goes on behind its last value, or wavers between two values."""
    unfinished = len(re.findall(r"[A-Za-z]+", rest)) > _UNFINISHED_WORDS and not _ENDED.search(rest)
    return (
        unfinished
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


def warm_up() -> None:
    """Fill the parser's tables with the shapes that answers have: the first LaTeX would take a checker 50 ms."""
    for answer in _WARM_UP:
        check({"gold": answer, "text": f"so the answer is ${answer}$. \\boxed{{{answer}+0}}"})
        check({"gold": answer, "text": f"so the answer is ${answer}$."})
        check({"gold": answer, "text": "The answer is 12.5"})
    _parsed.cache_clear()
