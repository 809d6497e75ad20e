"""The value of one formula: math-verify's reading and comparison, and what it loses or takes for the same.

It loses primes, subscripts, capitals and inequalities, and takes very small and very large values for equal.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.grader import unwrap_fcs
from sympy import Basic, Expr, FiniteSet, Float, I, Integer, Intersection, N, Reals, S, Set, Union, preorder_traversal

from mifo_verl.rewards.math_shape import RELATION, parts_of
from mifo_verl.rewards.notation import squeezed, without_unit

LATEX = (
    LatexExtractionConfig(normalization_config=replace(LatexExtractionConfig().normalization_config, units=False)),
)
"""math-verify takes letters for units (``2ab`` for 2); ``notation`` knows better."""
UNREADABLE = re.compile(
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
_INDEX_I = re.compile(r"\\(?:sum|prod|vec|hat|mathbf)(?![a-zA-Z])|_\{?i")
EXCEPT = re.compile(r"\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-)\s*\\\{(.*)\\\}")
"""All numbers but some."""
_POINTS = (7, 11, 13, 17, 19)


def same_value(g: str, f: str) -> tuple[bool, str]:
    """math-verify's word on two formulas; what it cannot read is not the same."""
    g, f = (without_unit(text).strip() for text in (g, f))
    if g and squeezed(g) == squeezed(f):
        return True, "letters"
    if (
        (RELATION.search(g + f) or EXCEPT.search(g + f))
        and (g_set := as_set(g)) is not None
        and (f_set := as_set(f)) is not None
    ):
        same_names = not (RELATION.search(g) and RELATION.search(f)) or _symbols(g) == _symbols(f)
        if same_names and g_set == f_set:
            return True, "value"
    read = [None if UNREADABLE.search(text) else formula_of(text) for text in (g, f)]
    if max(map(_num_symbols, (g, f))) > 1:  # with one symbol nobody takes its capital for another
        cased = [
            one if one is None else formula_of(_spelled(text, True)) for one, text in zip(read, (g, f), strict=True)
        ]
        read = cased if None not in cased else read
    if read[0] is None or read[1] is None:
        return False, "text"
    equal = _is_close(*read) and verify(read[:1], read[1:], timeout_seconds=None, allow_set_relation_comp=True)
    return bool(equal), "value"


@lru_cache(maxsize=512)
def formula_of(text: str) -> Any:
    """math-verify's reading; None if it has none."""
    found = next(iter(parse(f"\\boxed{{{_spelled(text)}}}", LATEX, "no_fallback", parsing_timeout=None)), None)
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


def as_set(text: str) -> Any:
    """Inequalities joined by ``or``, ``and`` or commas, or a set, as a set of numbers; None if it is neither."""
    if (excluded := _excluded(text)) is not None:
        return excluded
    if not RELATION.search(text):
        found = formula_of(text)
        return found if isinstance(found, Set) else None
    sets = []
    for part in re.split(r"\s+or\s+", text):
        conditions = [_of_condition(condition) for condition in re.split(r"\s+and\s+|\s*,\s*", part)]
        if None in conditions:
            return None
        both = Intersection(*conditions)
        sets += conditions if both is S.EmptySet and " and " not in part else [both]  # ``x<-1, x>1`` is no empty set
    return Union(*sets)


def _excluded(text: str) -> Any:
    """``x \\ne 3, 4`` and ``\\mathbb{R} \\setminus \\{3, 4\\}`` as a set of numbers; None for all else."""
    found = re.fullmatch(r"[a-zA-Z]\s*\\ne(?![a-z])((?:[^\\]|\\(?!ne))+)", text) or EXCEPT.fullmatch(text)
    numbers = [formula_of(part) for part in parts_of(found[1])] if found else [None]
    return None if None in numbers else Reals - FiniteSet(*numbers)


def _of_condition(condition: str) -> Any:
    """The numbers for which one inequality holds; None if it has several variables, or sympy has no such set."""
    if re.fullmatch(r"(?:[a-zA-Z]\s*\\in\s*)?\\mathbb\{R\}", condition):
        return Reals
    if (excluded := _excluded(condition)) is not None:
        return excluded
    try:
        return unwrap_fcs(formula_of(condition)).as_set()
    except Exception:
        return None


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
        exact = [(value.subs(point) if point else value).doit() for value in (a, b)]
        if all(value.is_Rational for value in exact) and not point:
            return bool(exact[0] == exact[1])
        x, y = (N(value, 40, maxn=400) for value in exact)
        if not (x.is_number and y.is_number) or not (x.is_finite and y.is_finite):
            return True
        inexact = any(isinstance(node, Float) for value in (a, b) for node in preorder_traversal(value))
        return bool(abs(x - y) <= (1e-3 if inexact or point else 1e-35) * max(abs(x), abs(y)))
    except (TypeError, ValueError, AttributeError, RecursionError):  # no number after all
        return True


def are_multiples(g_sides: list[str], f_sides: list[str]) -> bool:
    """Whether one equation is the other times a number, by its values at some points: sympy's proof is slow."""
    sides: list[Any] = [None if UNREADABLE.search(side) else formula_of(side) for side in (*g_sides, *f_sides)]
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
