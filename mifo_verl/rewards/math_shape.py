"""The form of a mathematical answer: a base, a ratio, units, several values, a matrix, an equation. Text to text."""

import re

from mifo_verl.rewards.notation import bare, closing, squeezed

LONGEST = 3000
"""A longer answer is compared letter by letter."""
BASE = re.compile(r"(-?)\(?([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\)?_\{?(\d{1,2}|[a-z]{3,7})\}?")
_BASES = {word: n for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}
RATIO = re.compile(r"(\d+(?:\.\d+)?)((?:\s*:\s*\d+(?:\.\d+)?)+)")
CLOCK = re.compile(r"(\d{1,2}:[0-5]\d)\s*(?:\\text\s*\{)?\s*([AaPp]?)(?:\.?\s*[Mm]\.?)?\s*\}?")
LETTERS = re.compile(r"[A-Za-z]{2,}(?:\s+[A-Za-z]+)*|[A-Z](?:\s+[A-Z])+")
COMPOUND = re.compile(
    r"(-?\d[\d.,]*)\s*(?:\\(?:text|mathrm|mbox|textrm|rm)\s*\{([^{}]*)\}|([A-Za-z]{2,}|(?<=\s)[hms](?![a-z])))"
)
COMPOUNDS = re.compile(rf"(?:{COMPOUND.pattern}\s*(?:,|and)?\s*){{2,}}")
CONGRUENCE = re.compile(r"([^,;]+?)\\equiv([^,;]+?)\\pmod\{(\w+)\}")
_MATRIX = re.compile(
    r"\(?\s*\\begin\s*\{(?:[pb]?matrix|array)\}(?:\s*\{[lcr|]*\})?((?:[^\\]|\\(?!begin|end))*)\\end\s*\{\w+\}\s*\)?",
    re.DOTALL,
)
_LISTS = re.compile(r"\[\s*(\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])+)\s*\]")
"""``[[1,2],[3,4]]``, a matrix in plain text."""
NAME = re.compile(r"(?![a-z]{2}$)(?:\\[a-zA-Z]+|[A-Za-z|{}'\s]|_\{?\w+\}?|\([A-Za-z0-9,\s]*\)|\^\{?-1\}?){1,40}")
"""``x``, ``f(x)``, ``\\angle ABC``, ``a_{n}``, ``area``; not ``xy``, which is a product."""
PERCENT_OF = re.compile(r"\b(?:increase|decrease|profit|loss|gain|discount|interest|chance)\b")
PERCENT = re.compile(rf"\\%\s*(?:\\text\s*\{{\s*{PERCENT_OF.pattern}\s*\}}|{PERCENT_OF.pattern})?$")
"""``20\\%``, and with what it is of behind it: ``20\\% \\text{ increase}``."""
RELATION = re.compile(r"(?<![<>=])[<>]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
_SIGN = re.compile(r"\\pm(?![a-z])")
_LOOSE = re.compile(r"\s*,?\s+(?:or|and)\s+|\s*[,;]\s*")


def digits_and_base(text: str) -> tuple[str, str]:
    """(digits, base): ``1A_{16}`` is 1A in 16; the base is '' without one."""
    match = BASE.fullmatch(squeezed(re.sub(r"\\(?:text|mathrm)\s*\{(\w+)\}", r"\1", text)))
    base = str(_BASES.get(match[3], match[3])) if match else ""
    if match is None or not base.isdecimal() or int(base) <= (1 if re.search(r"\d", match[2]) else 10):
        return squeezed(text).upper(), ""
    return match[1] + match[2].upper(), base


def rows_of(text: str) -> list[list[str]] | None:
    """The cells of a matrix; None for anything else."""
    if lists := _LISTS.fullmatch(text):
        return [row.split(",") for row in re.findall(r"\[([^\[\]]*)\]", lists[1])]
    match = _MATRIX.fullmatch(text.replace("[", "(").replace("]", ")"))
    return match and [row.split("&") for row in match[1].split(r"\\") if row.strip()]


def shape_of(text: str) -> tuple[str, list[str]] | None:
    """(brackets, parts) of several values; None for one value, a matrix, or inequalities."""
    if "\\begin" in text or RELATION.search(text):
        return None
    if text.startswith(r"\{") and closing(text, 1) == len(text) - 1:
        return "{}", parts_of(text[2:-2])
    if text[:1] in ("(", "[") and closing(text, 0) == len(text) - 1:
        parts = parts_of(text[1:-1])
        return (text[0] + text[-1], parts) if len(parts) > 1 else None
    parts = parts_of(text)
    return ("", parts) if len(parts) > 1 else None


def parts_of(text: str) -> list[str]:
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


def values_by_name(parts: list[str]) -> dict[str, str]:
    """Values by name where every part is ``name = value`` and no name comes twice; else empty."""
    sides = [sides_of(part) for part in parts]
    named = {squeezed(side[0]): side[-1] for side in sides if len(side) > 1 and NAME.fullmatch(side[0])}
    return named if len(named) == len(parts) else {}


def named_one_by_one(text: str, other: str) -> str:
    """``(x, y) = (1, 2)`` as ``x = 1, y = 2`` if the other answer is written so."""
    sides = [shape_of(side) for side in sides_of(text)]
    if len(sides) != 2 or not sides[0] or not sides[1] or len(sides[0][1]) != len(sides[1][1]):
        return text
    names = values_by_name(parts_of(other))
    return ", ".join(map("=".join, zip(sides[0][1], sides[1][1], strict=True))) if names else text


def sides_of(text: str) -> list[str]:
    """What stands between the equals signs outside all brackets."""
    sides, start, depth = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "=" and depth == 0 and text[index - 1 : index] not in ("<", ">", "!"):
            sides.append(text[start:index].strip())
            start = index + 1
    return [*sides, text[start:].strip()]
